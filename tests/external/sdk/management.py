"""azure-mgmt-containerregistry (PyPI): every operation of what is here, and azure-mgmt-resource
and azure-mgmt-authorization for what goes with it."""

import os
import uuid

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.containerregistry import ContainerRegistryManagementClient
from azure.mgmt.containerregistry import models as m

from checks import check, equals, refuses

server, subscription = os.environ["SERVER"], os.environ["SUBSCRIPTION"]
group, name = os.environ["GROUP"], "sdkregistry"
credential = ClientSecretCredential(
    os.environ["TENANT"], os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"], authority=server, disable_instance_discovery=True
)
# With the audience of Azure's own control plane, which is what the library asks for by itself,
# and with ours.
plain = ContainerRegistryManagementClient(credential, subscription, base_url=server)
check("signs in with the audience that it has by itself", isinstance(list(plain.registries.list()), list))
client = ContainerRegistryManagementClient(credential, subscription, base_url=server, credential_scopes=[server + "/.default"])

# --- groups, by azure-mgmt-resource
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.resource.resources.models import ResourceGroup

resources = ResourceManagementClient(credential, subscription, base_url=server, credential_scopes=[server + "/.default"])
made = resources.resource_groups.create_or_update("rg-sdk", {"location": "eastus", "tags": {"a": "b"}})
equals("resources: create a group", ("rg-sdk", "eastus", {"a": "b"}), (made.name, made.location, made.tags))
check("resources: it exists", resources.resource_groups.check_existence("rg-sdk") and not resources.resource_groups.check_existence("nosuch"))
check("resources: groups", "rg-sdk" in [g.name for g in resources.resource_groups.list()])
equals("resources: change a group", {"c": "d"}, resources.resource_groups.update("rg-sdk", {"tags": {"c": "d"}}).tags)
group = "rg-sdk"

# --- registries
equals("operations", True, any("registries/read" in o.name for o in client.operations.list()))
available = client.registries.check_name_availability({"name": name, "type": "Microsoft.ContainerRegistry/registries"})
equals("check a name", True, available.name_available)
made = client.registries.begin_create(
    group, name, m.Registry(location="eastus", sku=m.Sku(name="Premium"), tags={"x": "y"}, properties=m.RegistryProperties(admin_user_enabled=True))
).result()
equals("create", (name, "Premium", "Succeeded", True, {"x": "y"}), (made.name, made.sku.name, made.provisioning_state, made.admin_user_enabled, made.tags))
check("when", made.creation_date is not None, made.creation_date)
taken = client.registries.check_name_availability({"name": name, "type": "Microsoft.ContainerRegistry/registries"})
equals("the name is taken", (False, "AlreadyExists"), (taken.name_available, taken.reason))
bad = client.registries.check_name_availability({"name": "a_b", "type": "Microsoft.ContainerRegistry/registries"})
equals("a name that cannot be", (False, "Invalid"), (bad.name_available, bad.reason))
equals("get", made.id, client.registries.get(group, name).id)
refuses("get one that is not there", lambda: client.registries.get(group, "nosuchregistry"), ResourceNotFoundError, says="ResourceNotFound")
check("list", name in [r.name for r in client.registries.list()])
equals("list of a group", [name], [r.name for r in client.registries.list_by_resource_group(group)])
changed = client.registries.begin_update(
    group,
    name,
    m.RegistryUpdateParameters(
        tags={"x": "z"},
        properties=m.RegistryPropertiesUpdateParameters(
            anonymous_pull_enabled=True,
            data_endpoint_enabled=True,
            network_rule_set=m.NetworkRuleSet(default_action="Allow", ip_rules=[m.IPRule(ip_address_or_range="192.0.2.0/24", action="Allow")]),
            policies=m.Policies(retention_policy=m.RetentionPolicy(days=5, status="enabled"), export_policy=m.ExportPolicy(status="enabled")),
        ),
    ),
).result()
equals("update", ({"x": "z"}, True, True), (changed.tags, changed.anonymous_pull_enabled, changed.data_endpoint_enabled))
equals("its network rules", ("Allow", ["192.0.2.0/24"]), (changed.network_rule_set.default_action, [r.ip_address_or_range for r in changed.network_rule_set.ip_rules]))
equals("its policies", (5, "enabled"), (changed.policies.retention_policy.days, changed.policies.retention_policy.status))
check("its data endpoint", changed.data_endpoint_host_names and changed.data_endpoint_host_names[0].startswith(name), changed.data_endpoint_host_names)
equals("what was not named stays", True, changed.admin_user_enabled)
usages = {u.name: u for u in client.registries.list_usages(group, name).value}
equals("usages", ("Bytes", 0), (usages["Size"].unit, usages["Size"].current_value))
credentials = client.registries.list_credentials(group, name)
equals("credentials of the admin user", (name, ["password", "password2"]), (credentials.username, [p.name for p in credentials.passwords]))
renewed = client.registries.regenerate_credential(group, name, {"name": "password2"})
equals("renewed", (True, False), tuple(a.value == b.value for a, b in zip(credentials.passwords, renewed.passwords)))
check("private link resources", "registry" in [r.properties.group_id for r in client.registries.list_private_link_resources(group, name)])
equals("one of them", "registry", client.registries.get_private_link_resource(group, name, "registry").properties.group_id)

# --- scope maps and tokens
made = client.scope_maps.begin_create(
    group, name, "team-map", m.ScopeMap(properties=m.ScopeMapProperties(actions=["repositories/app/content/read"], description="reads"))
).result()
equals("create a scope map", (["repositories/app/content/read"], "reads", "Succeeded"), (made.actions, made.description, made.provisioning_state))
changed = client.scope_maps.begin_update(group, name, "team-map", {"properties": {"actions": ["repositories/app/content/read", "repositories/app/content/write"]}}).result()
equals("change it", 2, len(changed.actions))
equals("and the rest stays", "reads", changed.description)
check("list them", {"team-map", "_repositories_admin", "_repositories_pull", "_repositories_push"} <= {s.name for s in client.scope_maps.list(group, name)})
token = client.tokens.begin_create(group, name, "ci-token", {"properties": {"scopeMapId": made.id, "status": "enabled"}}).result()
equals("create a token", ("ci-token", "enabled", made.id.lower()), (token.name, token.status, token.scope_map_id.lower()))
passwords = client.registries.begin_generate_credentials(group, name, {"tokenId": token.id}).result()
equals("generate its passwords", ("ci-token", ["password1", "password2"]), (passwords.username, [p.name for p in passwords.passwords]))
check("which are shown", all(p.value for p in passwords.passwords))
shown = client.tokens.get(group, name, "ci-token")
check("once", not any(p.value for p in shown.credentials.passwords), shown.credentials.passwords)
single = client.registries.begin_generate_credentials(group, name, {"tokenId": token.id, "name": "password1", "expiry": "2030-01-01T00:00:00Z"}).result()
equals("one of them, that expires", 2030, [p for p in single.passwords if p.name == "password1"][0].expiry.year)
equals("disable it", "disabled", client.tokens.begin_update(group, name, "ci-token", {"properties": {"status": "disabled"}}).result().status)
equals("list tokens", ["ci-token"], [t.name for t in client.tokens.list(group, name)])
client.tokens.begin_delete(group, name, "ci-token").result()
refuses("delete a token", lambda: client.tokens.get(group, name, "ci-token"), ResourceNotFoundError)
client.scope_maps.begin_delete(group, name, "team-map").result()
refuses("delete a scope map", lambda: client.scope_maps.get(group, name, "team-map"), ResourceNotFoundError)

# --- cache rules
made = client.cache_rules.begin_create(
    group, name, "mirror", m.CacheRule(properties=m.CacheRuleProperties(source_repository="quay.io/acme/app", target_repository="mirror/app"))
).result()
equals("create a cache rule", ("quay.io/acme/app", "mirror/app"), (made.source_repository, made.target_repository))
equals("get it", "mirror/app", client.cache_rules.get(group, name, "mirror").target_repository)
check("list them", "mirror" in [r.name for r in client.cache_rules.list(group, name)])
client.cache_rules.begin_delete(group, name, "mirror").result()
refuses("delete it", lambda: client.cache_rules.get(group, name, "mirror"), ResourceNotFoundError)

# --- what there is none of yet
for what in ("webhooks", "credential_sets", "connected_registries", "private_endpoint_connections"):
    equals(f"list {what}", [], list(getattr(client, what).list(group, name)))
check("list replications", isinstance(list(client.replications.list(group, name)), list))

# --- roles, by azure-mgmt-authorization
from azure.mgmt.authorization import AuthorizationManagementClient

roles = AuthorizationManagementClient(credential, subscription, base_url=server, credential_scopes=[server + "/.default"])
scope = client.registries.get(group, name).id
found = list(roles.role_definitions.list(scope, filter="roleName eq 'AcrPull'"))
equals("authorization: a role by name", ["7f951dda-4ed3-4680-a7ca-43fe172d538d"], [r.name for r in found])
check("authorization: its actions", "Microsoft.ContainerRegistry/registries/pull/read" in found[0].permissions[0].actions, found[0].permissions)
assignment = roles.role_assignments.create(
    scope,
    str(uuid.uuid4()),
    {"properties": {"roleDefinitionId": found[0].id, "principalId": os.environ["PRINCIPAL"], "principalType": "ServicePrincipal"}},
)
equals("authorization: assign it", os.environ["PRINCIPAL"], assignment.principal_id)
check("authorization: assignments of a scope", assignment.name in [a.name for a in roles.role_assignments.list_for_scope(scope)])
check("authorization: of somebody", assignment.name in [a.name for a in roles.role_assignments.list_for_scope(scope, filter=f"principalId eq '{os.environ['PRINCIPAL']}'")])
check("authorization: of the subscription", assignment.name in [a.name for a in roles.role_assignments.list_for_subscription()])
equals("authorization: one by its id", assignment.name, roles.role_assignments.get_by_id(assignment.id).name)
roles.role_assignments.delete(scope, assignment.name)
refuses("authorization: delete it", lambda: roles.role_assignments.get(scope, assignment.name), ResourceNotFoundError)

# --- deleting
client.registries.begin_delete(group, name).result()
refuses("delete a registry", lambda: client.registries.get(group, name), ResourceNotFoundError)
client.registries.begin_delete(group, name).result()
check("again is no error", True)
resources.resource_groups.begin_delete(group).result()
check("resources: delete a group", not resources.resource_groups.check_existence(group))
refuses("resources: a group that is not there", lambda: resources.resource_groups.begin_delete("nosuch").result(), HttpResponseError, says="ResourceGroupNotFound")
