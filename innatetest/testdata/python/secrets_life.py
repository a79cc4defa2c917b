# Does all that the vendor's client can do with secrets, as it comes: the
# challenge check on, no option set. Usage: secrets_life.py VAULT-URL. What it
# prints is the same as secrets.mjs's.
import datetime
import sys

from azure.core.exceptions import HttpResponseError
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient

client = SecretClient(sys.argv[1], ManagedIdentityCredential())
name = "db-password"
soon = {"_polling_interval": 0.05}


def say(*words):
    print(*(str(w).lower() if isinstance(w, bool) else w for w in words))


def refused(what):
    try:
        what()
        return "nothing"
    except HttpResponseError as refusal:
        return refusal.status_code


first = client.set_secret(name, "hunter2", content_type="text/plain", tags={"stage": "test"})
say("set", first.value, first.properties.content_type, first.properties.tags["stage"])
second = client.set_secret(name, "hunter3")
say("latest", client.get_secret(name).value)
say("older", client.get_secret(name, first.properties.version).value)
versions = list(client.list_properties_of_secret_versions(name))
say("versions", len(versions), all(v.name == name and not hasattr(v, "value") for v in versions))

for n in range(30):
    client.set_secret(f"more-{n}", "v")
say("listed", len(list(client.list_properties_of_secrets())))

expires = datetime.datetime(2035, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
version = second.properties.version
client.update_secret_properties(name, version, enabled=False, expires_on=expires, tags={"stage": "live"})
say("disabled", refused(lambda: client.get_secret(name)))
client.update_secret_properties(name, version, enabled=True)
updated = client.get_secret(name).properties
say("updated", updated.enabled, int(updated.expires_on.timestamp()), updated.tags["stage"])

backup = client.backup_secret(name)
deleted = client.begin_delete_secret(name, **soon).result()
say("deleted", deleted.name, deleted.recovery_id is not None, deleted.scheduled_purge_date > deleted.deleted_date)
say("gone", refused(lambda: client.get_secret(name)))
say("taken", refused(lambda: client.set_secret(name, "hunter4")))
say("among the deleted", len(list(client.list_deleted_secrets())), client.get_deleted_secret(name).name)
client.begin_recover_deleted_secret(name, **soon).wait()
say("recovered", client.get_secret(name).value)

client.begin_delete_secret(name, **soon).wait()
client.purge_deleted_secret(name)
say("purged", refused(lambda: client.get_deleted_secret(name)))
say("restored", client.restore_secret_backup(backup).name, client.get_secret(name).value)
say("with its versions", client.get_secret(name, first.properties.version).value)
say("restored twice", refused(lambda: client.restore_secret_backup(backup)))
