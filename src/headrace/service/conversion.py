"""The plugin image_conversion: disk images are stored in one format, whatever they came in.

qemu-img does it, on data that was inspected before (OSSA-2024-001, -003), told what the data is
and never asked to guess (OSSA-2026-002), under limits of memory, time and size (OSSA-2016-012), on
files that it knows by our descriptors alone.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import replace

import msgspec

from headrace import errors
from headrace.model import MIB
from headrace.service import formats
from headrace.service.plugins import Staged, Work

_QEMU_NAMES = {
    "raw": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vhd": "vpc",
    "vhdx": "vhdx",
    "vdi": "vdi",
}
_NO_DISKS = ("iso", "aki", "ari", "ami")  # stay what they are

_MEMORY = 1 << 30
_INFO_SECONDS = 2  # of CPU, as Glance gives it
_CONVERT_SECONDS = 60
_CONVERT_RATE = 4 * MIB  # bytes of the disk that take not more than one second more
_SLACK = 64 * MIB  # metadata of what is made, on top of the disk's data
_TURN = 0.5  # seconds between two looks at a qemu-img at work
_TELLS = 64 << 10  # bytes that it may say
_ENVIRONMENT = {
    "LC_ALL": "C",
    "MALLOC_ARENA_MAX": "1",  # glibc sets 64 MiB of addresses aside for each of 64 threads
    "PATH": "/usr/bin:/bin",
}


class Conversion:
    """Converts to ``output_format`` (raw, qcow2 or vmdk); what is no disk stays as it is.

    ``size_cap`` bounds the disk and what is made of it, ``ratio`` how many times the bytes that
    came in it may take up.  The others are those of ``formats.inspect``.  Raises FormatMismatch,
    UnsafeImage, NotConvertible, ImageTooLarge, ExpandsTooMuch, StoreFull; ConfigurationError when
    the programs are not there.
    """

    def __init__(
        self,
        output_format: str,
        size_cap: int,
        ratio: int,
        vmdk_allowed_types: Collection[str],
        gpt_safety_nonfatal: Collection[str],
    ) -> None:
        self._output_format = output_format
        self._size_cap = size_cap
        self._ratio = ratio
        self._vmdk_allowed_types = vmdk_allowed_types
        self._gpt_safety_nonfatal = gpt_safety_nonfatal
        self._qemu_img = _found("qemu-img")
        self._setpriv, self._prlimit = _found("setpriv"), _found("prlimit")

    def __call__(self, staged: Staged, work: Work) -> Staged:
        declared = staged.image.disk_format or ""
        if declared in _NO_DISKS:
            container = "bare" if declared == "iso" else staged.image.container_format
            self._inspect(staged.fd, staged.size, declared, container)
            return staged
        if declared not in _QEMU_NAMES:
            raise errors.NotConvertible(reason=f"{declared} is no format to convert from")
        self._inspect(staged.fd, staged.size, declared)
        virtual_size = self._virtual_size(staged, declared, work)
        if declared == self._output_format:
            image = replace(staged.image, container_format="bare")
            return replace(staged, image=image)
        made = self._convert(staged, declared, virtual_size, work)
        size = os.fstat(made).st_size
        self._inspect(made, size, self._output_format)  # what is in a disk may be one, too
        image = replace(staged.image, disk_format=self._output_format, container_format="bare")
        return replace(staged, fd=made, size=size, image=image)

    def _inspect(
        self, fd: int, size: int, disk_format: str, container: str | None = "bare"
    ) -> None:
        formats.inspect(
            fd,
            size,
            container,
            disk_format,
            require_match=True,
            vmdk_allowed_types=self._vmdk_allowed_types,
            gpt_safety_nonfatal=self._gpt_safety_nonfatal,
        )
        if disk_format == "raw" and (inner := formats.recognise(fd, size) & _QEMU_NAMES.keys()):
            raise errors.FormatMismatch(detected=min(inner), declared=disk_format)

    def _virtual_size(self, staged: Staged, declared: str, work: Work) -> int:
        """The disk's size in bytes, once qemu-img sees nothing in it that refers to elsewhere."""
        told = self._run(
            ["info", "--output=json", "-f", _QEMU_NAMES[declared], _path(staged.fd)],
            [staged.fd],
            work,
            seconds=_INFO_SECONDS,
            most=_TELLS,
        )
        try:
            info = msgspec.json.decode(told, type=_Info)
        except msgspec.DecodeError:
            raise errors.NotConvertible(reason="qemu-img cannot tell what it is") from None
        details = info.format_specific.data
        if info.format != _QEMU_NAMES[declared]:
            raise errors.UnsafeImage(reason=f"qemu-img says that it is {info.format}")
        if info.backing_filename is not None or details.data_file is not None:
            raise errors.UnsafeImage(reason="it refers to another file")
        if declared == "vmdk" and (details.create_type or "").lower() not in {
            allowed.lower() for allowed in self._vmdk_allowed_types
        }:
            raise errors.UnsafeImage(reason=f"vmdk sub-type {details.create_type} is not allowed")
        if info.virtual_size > self._size_cap:
            raise errors.ImageTooLarge(cap=self._size_cap)
        return info.virtual_size

    def _convert(self, staged: Staged, declared: str, virtual_size: int, work: Work) -> int:
        """The descriptor of a file in the format of output."""
        fd = work.new_file()
        most = staged.size * self._ratio + _SLACK

        def look() -> None:
            taken = os.fstat(fd).st_blocks * 512
            work.progress(taken)
            if taken > most:
                raise errors.ExpandsTooMuch(ratio=self._ratio)

        self._run(
            [
                *("convert", "-f", _QEMU_NAMES[declared], "-O", self._output_format),
                *(_path(staged.fd), _path(fd)),
            ],
            [staged.fd, fd],
            replace(work, progress=lambda _: look()),
            seconds=_CONVERT_SECONDS + virtual_size // _CONVERT_RATE,
            most=min(virtual_size + virtual_size // 64 + _SLACK, self._size_cap + _SLACK),
        )
        look()
        if os.fstat(fd).st_size > self._size_cap:
            raise errors.ImageTooLarge(cap=self._size_cap)
        return fd

    def _run(
        self, arguments: Sequence[str], fds: Sequence[int], work: Work, *, seconds: int, most: int
    ) -> bytes:
        """What qemu-img says; it has so many ``seconds`` of CPU and files of ``most`` bytes.

        It ends with the thread that waits for it.  Raises NotConvertible when it fails.
        """
        command = [
            *(self._setpriv, "--no-new-privs", "--pdeathsig", "KILL"),
            *(self._prlimit, f"--as={_MEMORY}", f"--cpu={seconds}", f"--fsize={most}", "--core=0"),
            *("--", self._qemu_img, *arguments),
        ]
        with open(os.memfd_create("said", os.MFD_CLOEXEC), "w+b", buffering=0) as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=fds,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a Ctrl-C is for the service, which ends it in order
            )
            try:
                while process.poll() is None:
                    work.progress(0)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_TURN)
            except BaseException:
                process.kill()
                raise
            finally:
                process.wait()
            words = os.pread(said.fileno(), _TELLS, 0)
        if process.returncode:
            raise _failure(process.returncode, words)
        return words


class _Details(msgspec.Struct, rename="kebab"):
    data_file: str | None = None
    create_type: str | None = None


class _Specific(msgspec.Struct):
    data: _Details = msgspec.field(default_factory=_Details)


class _Info(msgspec.Struct, rename="kebab"):
    """What of ``qemu-img info --output=json`` counts."""

    format: str
    virtual_size: int
    backing_filename: str | None = None
    format_specific: _Specific = msgspec.field(default_factory=_Specific)


def _failure(status: int, words: bytes) -> errors.Error:
    """Why qemu-img failed; no words of its own, which quote names of files."""
    if b"No space left on device" in words:
        return errors.StoreFull()
    if status < 0:
        return errors.NotConvertible(reason=f"qemu-img was ended by signal {-status}")
    return errors.NotConvertible(reason=f"qemu-img failed (status {status})")


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise errors.ConfigurationError(reason=f"image_conversion needs the program {program}")
    return path


def _path(fd: int) -> str:
    """A file by its descriptor: it needs no name, and there is no other to be taken for it."""
    return f"/proc/self/fd/{fd}"
