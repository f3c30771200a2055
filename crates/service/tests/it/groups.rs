//! Resource groups.

use portolan_service::Kind;
use portolan_types::GroupName;
use serde_json::{Map, json};

use crate::support::{Site, nobody};

#[tokio::test]
async fn a_group_is_made_once_and_goes_with_all_in_it() {
    let site = Site::new().await;
    let service = &site.service;
    let rg: GroupName = "rg".parse().unwrap();
    let shout: GroupName = "RG".parse().unwrap();
    let tags = json!({"a": "b"}).as_object().cloned().unwrap();
    let (group, created) = service.put_group(&site.owner, &rg, Some("East US"), Some(&tags)).await.unwrap();
    assert!(created);
    assert_eq!((group.location.as_str(), group.tags["a"].as_str()), ("eastus", "b"));
    let (again, created) = service.put_group(&site.owner, &shout, Some("eastus"), None).await.unwrap();
    assert_eq!((again.name.as_str(), created, again.tags.len()), ("rg", false, 1), "the first spelling and tags stay");
    let e = service.put_group(&site.owner, &rg, Some("westus"), None).await.unwrap_err();
    assert_eq!((e.kind, e.code), (Kind::Conflict, "InvalidResourceGroupLocation"));
    for location in [None, Some(""), Some("  "), Some("a/b")] {
        let new: GroupName = "other".parse().unwrap();
        assert_eq!(service.put_group(&site.owner, &new, location, None).await.unwrap_err().kind, Kind::Invalid);
    }
    let bad = Map::from_iter([("a".to_owned(), json!(1))]);
    assert_eq!(service.put_group(&site.owner, &rg, Some("eastus"), Some(&bad)).await.unwrap_err().code, "InvalidTag");

    let reg = site.registry("myreg", json!({})).await;
    service.delete_group(&site.owner, &shout).await.unwrap();
    assert!(service.registry("myreg").is_err() && service.registry_by_host(&reg.login_server).is_none());
    for gone in [
        service.show_group(&site.owner, &rg).await.unwrap_err(),
        service.delete_group(&site.owner, &rg).await.unwrap_err(),
    ] {
        assert_eq!((gone.kind, gone.code), (Kind::NotFound, "ResourceGroupNotFound"));
    }
}

#[tokio::test]
async fn lists_are_in_order_and_strangers_see_nothing() {
    let site = Site::new().await;
    let service = &site.service;
    for name in ["b", "A", "c"] {
        service.put_group(&site.owner, &name.parse().unwrap(), Some("eastus"), None).await.unwrap();
    }
    let names: Vec<String> =
        service.list_groups(&site.owner).await.unwrap().iter().map(|g| g.name.to_string()).collect();
    assert_eq!(names, ["A", "b", "c"]);
    let rg: GroupName = "b".parse().unwrap();
    for e in [
        service.list_groups(&nobody()).await.unwrap_err(),
        service.show_group(&nobody(), &rg).await.unwrap_err(),
        service.delete_group(&nobody(), &rg).await.unwrap_err(),
    ] {
        assert_eq!(e.kind, Kind::Unauthenticated);
    }
}
