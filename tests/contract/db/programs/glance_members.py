"""A Glance at work on the members of an image.  Run by its own Python: CONFIGURATION IMAGE ACT…

ACT is add=PROJECT, accept=PROJECT or remove=PROJECT; the members are then written as JSON.
"""

import json
import sys
from types import SimpleNamespace

from glance import context, db
from glance.common import config  # noqa: F401  registers the options
from glance.db.sqlalchemy import api
from glance.domain import ImageMemberFactory
from oslo_config import cfg


def main(configuration: str, image_id: str, *acts: str) -> None:
    cfg.CONF([], project="glance", default_config_files=[configuration])
    admin = context.RequestContext(is_admin=True)
    image = SimpleNamespace(image_id=image_id)
    members = db.ImageMemberRepo(admin, api, image)
    for act in acts:
        verb, _, project = act.partition("=")
        if verb == "add":
            members.add(ImageMemberFactory().new_image_member(image, project))
            continue
        member = members.get(project)
        if verb == "remove":
            members.remove(member)
        else:
            member.status = "accepted"
            members.save(member)
    print(json.dumps({each.member_id: each.status for each in members.list()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
