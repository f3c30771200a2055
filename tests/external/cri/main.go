// cri asks a container runtime for images as a kubelet does: over the CRI, with the
// credentials of a pull secret. It is a client for the tests, with the few calls they need.
//
//	cri SOCKET version
//	cri SOCKET pull IMAGE [USER]      the password comes on standard input
//	cri SOCKET images                 one line for each: id, tags, digests
//	cri SOCKET status IMAGE           its id, or nothing
//	cri SOCKET remove IMAGE
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: cri SOCKET version|pull|images|status|remove …")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	images := cri.NewImageServiceClient(conn)
	command, args := args[1], args[2:]
	spec := func() *cri.ImageSpec { return &cri.ImageSpec{Image: args[0]} }
	switch {
	case command == "version":
		answer, err := cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{})
		if err != nil {
			return err
		}
		fmt.Println(answer.RuntimeName, answer.RuntimeVersion, answer.RuntimeApiVersion)
	case command == "pull" && len(args) > 0:
		request := &cri.PullImageRequest{Image: spec()}
		if len(args) > 1 {
			password, err := bufio.NewReader(os.Stdin).ReadString('\n')
			if password == "" && err != nil {
				return fmt.Errorf("read the password: %w", err)
			}
			request.Auth = &cri.AuthConfig{Username: args[1], Password: strings.TrimRight(password, "\n")}
		}
		answer, err := images.PullImage(ctx, request)
		if err != nil {
			return err
		}
		fmt.Println(answer.ImageRef)
	case command == "images":
		answer, err := images.ListImages(ctx, &cri.ListImagesRequest{})
		if err != nil {
			return err
		}
		for _, image := range answer.Images {
			fmt.Println(image.Id, strings.Join(image.RepoTags, ","), strings.Join(image.RepoDigests, ","))
		}
	case command == "status" && len(args) > 0:
		answer, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec()})
		if err != nil {
			return err
		}
		if answer.Image != nil {
			fmt.Println(answer.Image.Id)
		}
	case command == "remove" && len(args) > 0:
		_, err := images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec()})
		return err
	default:
		return fmt.Errorf("unknown command %q", command)
	}
	return nil
}
