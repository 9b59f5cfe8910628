"""A process that writes an image, told on standard input when to go on.

Arguments: variant, directory, image id, content.  It creates a writer, writes the content and says
``ready``; at the next line it commits and says ``won``, or ``lost`` if the name was taken.
"""

import os
import sys
from pathlib import Path

from headrace import errors
from tests.contract.stores.variants import VARIANTS

variant, directory, image_id, content = sys.argv[1:]
store = VARIANTS[variant].make(Path(directory))
writer = store.create(image_id, None)
os.write(writer.sink.fd, content.encode())
print("ready", flush=True)
sys.stdin.readline()
try:
    writer.commit()
    print("won", flush=True)
except errors.DataExists:
    print("lost", flush=True)
