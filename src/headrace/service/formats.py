"""Whether data is what its disk_format says, and safe to hand out.

The recognising is oslo.utils' (shared by Glance, Nova, Cinder and Ironic); the decision is made
here.  An inspector is written for a stream and names the regions it wants to see.  The landed file
can be sought in, so that only its first MiB is fed as a stream and the regions beyond (a VMDK's
footer, a VHDX's metadata) are read where they lie: an image of 100 GiB costs what a small one does.
"""

import logging
import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from headrace import errors
from headrace.model import MIB

if TYPE_CHECKING:
    from oslo_utils.imageutils.format_inspector import FileInspector

_log = logging.getLogger(__name__)

# All signatures lie in the first 34 KiB; a VMDK descriptor that is text from the start of the file
# is parsed from the first piece alone, up to 1 MiB, which is as far as qemu reads one.
_HEAD = MIB
_REGION_MAX = MIB  # the largest any inspector asks for is a VMDK's descriptor, 1 MiB less one byte
_ROUNDS = 4  # a VHDX leads from its region table to its metadata table to the size
_AS_LONG_AS_FED = ("gpt", "luks")  # their size comes from counting what the inspector was fed
_LARGEST = (1 << 63) - 1  # what the database's column holds


def inspect(
    fd: int,
    size: int,
    container_format: str | None,
    disk_format: str | None,
    *,
    require_match: bool,
    vmdk_allowed_types: Collection[str],
    gpt_safety_nonfatal: Collection[str],
    lost: range = range(0),
) -> int | None:
    """The virtual size in bytes of the image in the file ``fd`` (None: unknown).

    Reads by pread and leaves the position alone.  ``vmdk_allowed_types`` narrows the sub-types that
    are safe; ``gpt_safety_nonfatal`` names checks of a partition table that may fail.  ``lost`` are
    bytes that the file does not hold any more.  Only bare images are inspected.

    Raises FormatMismatch when the data is not what ``disk_format`` says and ``require_match`` is
    set, UnsafeImage when it fails a safety check, is of several formats, cannot be parsed, or has
    what is to be inspected where it is lost.
    """
    if container_format != "bare":
        return None
    matches = _recognise(fd, size, lost)
    if matches.keys() == {"gpt", "iso"}:
        del matches["gpt"]  # the usual way of making one image boot from disc and from disk
    if len(matches) > 1:
        raise errors.UnsafeImage(reason=f"it is {' and '.join(sorted(matches))} at once")
    for detected, inspector in matches.items():
        _check_declared(detected, disk_format, require_match)
        _check_safety(inspector, vmdk_allowed_types, gpt_safety_nonfatal)
        _warn_of_mismatch(detected, disk_format)
        if disk_format == "raw":
            return size
        return _virtual_size(inspector, size) if detected == disk_format else None
    _check_declared("raw", disk_format, require_match)
    _warn_of_mismatch("raw", disk_format)
    return size if disk_format == "raw" else None


def recognise(fd: int, size: int) -> set[str]:
    """The formats, other than raw, that the data has the signs of; raises UnsafeImage."""
    return set(_recognise(fd, size, range(0)))


def _check_declared(detected: str, declared: str | None, require_match: bool) -> None:
    if require_match and declared != "raw" and not _fits(detected, declared):
        raise errors.FormatMismatch(detected=detected, declared=declared)


def _warn_of_mismatch(detected: str, declared: str | None) -> None:
    if not _fits(detected, declared):
        _log.warning("an image declared as %s holds %s", declared, detected)


def _fits(detected: str, declared: str | None) -> bool:
    from oslo_utils.imageutils.format_inspector import ALL_FORMATS

    return detected == declared or (detected == "raw" and declared not in ALL_FORMATS)


def _check_safety(
    inspector: "FileInspector",
    vmdk_allowed_types: Collection[str],
    gpt_safety_nonfatal: Collection[str],
) -> None:
    from oslo_utils.imageutils.format_inspector import SafetyCheckFailed, VMDKInspector

    nonfatal = gpt_safety_nonfatal if inspector.NAME == "gpt" else ()
    try:
        inspector.safety_check()
    except SafetyCheckFailed as failed:
        fatal = [f"{failed.failures[name]}" for name in failed.failures if name not in nonfatal]
        if fatal:
            raise errors.UnsafeImage(reason=f"{inspector}: {'; '.join(fatal)}") from None
    except Exception as error:
        raise errors.UnsafeImage(reason=f"{inspector}: {error}") from error
    if isinstance(inspector, VMDKInspector) and inspector.vmdktype not in {
        allowed.lower() for allowed in vmdk_allowed_types
    }:
        raise errors.UnsafeImage(reason=f"vmdk sub-type {inspector.vmdktype} is not allowed")


def _virtual_size(inspector: "FileInspector", size: int) -> int | None:
    try:
        found = inspector.virtual_size
    except Exception as error:
        raise errors.UnsafeImage(reason=f"the {inspector} header gives no size") from error
    if inspector.NAME in _AS_LONG_AS_FED:
        found += size - inspector.actual_size
    if not 0 <= found <= _LARGEST:
        raise errors.UnsafeImage(reason=f"the {inspector} header gives an impossible size")
    return found or None


def _recognise(fd: int, size: int, lost: range) -> dict[str, "FileInspector"]:
    """The formats, other than raw, that the data has the signs of, with their inspectors fed.

    Raises UnsafeImage when an inspector breaks over data of its own format.
    """
    from oslo_utils.imageutils.format_inspector import ALL_FORMATS

    head = _read(fd, 0, min(size, _HEAD))
    matches = {}
    for name, cls in ALL_FORMATS.items():
        if name == "raw":
            continue
        inspector = cls()
        failure: Exception | None = None
        try:
            inspector.eat_chunk(head)
            _complete(inspector, fd, size, lost)
        except OSError:
            raise  # the disk's failure, not the inspector's
        except Exception as error:
            failure = error  # how an inspector says "not mine", too
        if not _is_match(inspector, head):
            continue
        if failure is not None:
            raise errors.UnsafeImage(reason=f"the {name} header is broken: {failure}")
        matches[name] = inspector
    return matches


def _is_match(inspector: "FileInspector", head: bytes) -> bool:
    try:
        return inspector.format_match
    except Exception as error:
        # The VMDK inspector cannot answer for text with bytes other than ASCII behind it.  That is
        # a descriptor to qemu all the same if it names a type, and else just some text.
        if inspector.NAME == "vmdk" and b'createtype="' not in head.lower():
            return False
        raise errors.UnsafeImage(reason=f"the {inspector} header is broken") from error


def _complete(inspector: "FileInspector", fd: int, size: int, lost: range) -> None:
    """Fill the regions that lie beyond the head, then tell the inspector that this was all.

    The order is that of FileInspector.eat_chunk: capture, post_process, region_complete.
    """
    from oslo_utils.imageutils.format_inspector import EndCaptureRegion

    for _ in range(_ROUNDS):
        filled = []
        for name in inspector.context_info:
            region = inspector.region(name)
            if region.complete or isinstance(region, EndCaptureRegion):
                continue
            offset = region.offset + len(region.data)
            wanted = min(region.length - len(region.data), size - offset, _REGION_MAX)
            if wanted > 0:
                if offset < lost.stop and lost.start < offset + wanted:
                    raise ValueError(f"its {name} lies {offset} bytes from the start")
                data = _read(fd, offset, wanted)
                region.capture(data, offset + len(data))
                filled.append(region)
        if not filled:
            break
        inspector.post_process()
        for region in filled:
            if region.complete:
                inspector.region_complete(inspector.region_name(region))
    for name in inspector.context_info:
        region = inspector.region(name)
        if isinstance(region, EndCaptureRegion):
            region.capture(_read(fd, max(size - region.length, 0), region.length), size)
    inspector.finish()


def _read(fd: int, offset: int, length: int) -> bytes:
    """``length`` bytes at ``offset``; fewer only at the file's end."""
    pieces = []
    while length > 0 and (piece := os.pread(fd, length, offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)
