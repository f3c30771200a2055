"""Echoes what it is sent. Built in two stages by `portolan acr build`, served by uvicorn."""

import os

from fastapi import FastAPI, Request

app = FastAPI(title="fastapi-echo")


@app.get("/")
async def about():
    return {"app": "fastapi-echo", "version": os.environ.get("APP_VERSION", "dev")}


@app.api_route("/echo", methods=["GET", "POST"])
async def echo(request: Request):
    body = (await request.body()).decode("utf-8", "replace")
    return {"method": request.method, "args": dict(request.query_params), "body": body}


@app.get("/healthz")
async def healthz():
    return "ok"
