"""A caller's own pictures as inputs: what it keeps as references, and what its jobs have drawn."""

from licht.core.errors import UnknownJob
from licht.core.request import Picture
from licht.service.api.parts import Parts


def find_own(parts: Parts, key_id: str, kind: str, name: str) -> Picture | bytes:
    """The pixels of a "reference", or the file of a "job". Raises `UnknownJob`, `NotAvailable`."""
    if kind == "reference":
        if not parts.uploads.may_read(key_id, name):
            raise UnknownJob("there is no such reference; check the id", field="id")
        return parts.storage.get_picture(name)
    job = parts.store.get(name, key_id)
    if job.result is None:
        raise UnknownJob("the job has no result", field="id")
    return parts.storage.get(job.result["blob"])
