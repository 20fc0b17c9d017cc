"""Hook: what runs before or after a VM's migration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reconciler.manifests.schema.shapes import Manifest, Model, ObjectReference


class Aap(Model):
    """An Ansible Automation Platform job instead of a local container."""

    job_template_id: int = Field(gt=0)
    url: str = ""
    token_secret: ObjectReference | None = None
    timeout: int = Field(default=0, ge=0, description="Seconds; 0: deadline, then aap_timeout, then 3600.")


class HookSpec(Model):
    image: str = Field(default="", description="Required for local hooks; not together with aap.")
    playbook: str = Field(default="", description="Ansible playbook in base64.")
    deadline: int = Field(default=0, ge=0, description="Seconds; 0: none.")
    service_account: str = ""
    aap: Aap | None = None


class Hook(Manifest):
    """A step of one's own around a VM's migration."""

    kind: Literal["Hook"]
    spec: HookSpec
