"""Run a program of this directory, and write down which of the clients' calls it makes.

FILE PROGRAM FUNCTION ARGUMENT…
"""

import runpy
import sys
from types import FrameType

GLANCE, SDK = "glanceclient.v2.", "openstack.image.v2._proxy"

calls: set[str] = set()


def note(frame: FrameType, event: str, _: object) -> None:
    if event != "call":
        return
    module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname
    if module == SDK and name.startswith("Proxy."):
        calls.add(f"openstacksdk {name.removeprefix('Proxy.')}")
    elif module.startswith(GLANCE) and "Controller." in name:
        calls.add(f"python-glanceclient {module.removeprefix(GLANCE)}.{name}")


file, *sys.argv = sys.argv[1:]
sys.setprofile(note)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    sys.setprofile(None)
    with open(file, "w") as record:
        record.writelines(f"{call}\n" for call in sorted(calls))
