"""import from the command line."""

import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Headrace, Outcome, run
from tests.cli.test_completion import complete
from tests.cli.test_stores import call, image, several
from tests.conftest import Serve
from tests.image_files import VIRTUAL_SIZE, qemu_image
from tools.serving import Serving, serving

__all__ = ["call", "image", "several"]  # fixtures

DATA = b"data that a service fetches"
Call = Callable[..., Outcome]


class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/image" else 404)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def record(call: Call, name: str) -> str:
    return call("add", f"name={name}", "disk_format=raw").image_id


def test_data_is_fetched(call: Call, several: Serving, origin: str) -> None:
    image_id = record(call, "fetched")
    done = call("import", image_id, f"uri={origin}/image", "stores=all")
    assert (done.status, done.err) == (0, "")
    assert done.out == f"Imported image {image_id} fetched by web-download\n"
    assert json.loads(call("show", image_id, "--json").out)["stores"] == "fast,cheap"
    assert (several.state_dir / "cheap" / image_id).read_bytes() == DATA


def test_what_cannot_be_fetched_is_told(call: Call, origin: str) -> None:
    image_id = record(call, "lost")
    done = call("import", image_id, f"uri={origin}/lost")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("headrace: the import failed: ")
    assert "404" in done.err
    done = call("import", image_id, "uri=http://169.254.169.254/")
    assert (done.status, done.err) == (1, "headrace: invalid location [image.invalid_location]\n")


def test_a_file_is_sent_and_imported_and_copied(call: Call, several: Serving, image: Path) -> None:
    image_id = record(call, "sent")
    done = call("import", image_id, f"path={image}", "stores=cheap", "--json")
    assert json.loads(done.out)["status"] == "active"
    done = call("import", image_id, "method=copy-image", "stores=fast")
    assert done.out == f"Imported image {image_id} sent by copy-image\n"
    for store in ("fast", "cheap"):
        assert (several.state_dir / store / image_id).read_bytes() == image.read_bytes()


@pytest.mark.slow
def test_an_image_of_another_region(image: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "there") as there:
        env = {
            "OS_DEFAULT__ENABLED_IMPORT_METHODS": "[glance-download]",
            "OS_HEADRACE__GLANCE_REGIONS": f"east:{there.url}",
        }
        with serving(tmp_path / "here", env=env) as here:

            def at(server: Serving, *words: str) -> Outcome:
                return run(*words, env={"HEADRACE_URL": server.url})

            theirs = at(
                there, "add", "name=theirs", f"path={image}", "disk_format=raw", "os_type=linux",
                "note=theirs",
            ).image_id  # fmt: skip
            ours = at(here, "add", "name=ours", "disk_format=iso").image_id
            done = at(here, "import", ours, "region=East", f"image={theirs}")
            assert (done.status, done.err) == (0, "")
            assert done.out == f"Imported image {ours} ours by glance-download\n"
            found = json.loads(at(here, "show", ours, "--json").out)
            source = json.loads(at(there, "show", theirs, "--json").out)
            for name in ("size", "checksum", "os_hash_value", "disk_format", "os_type", "status"):
                assert found[name] == source[name]
            assert (found["name"], "note" in found) == ("ours", False)
            assert (here.image_dir / ours).read_bytes() == image.read_bytes()

            lost = at(here, "add", "name=lost", "disk_format=raw").image_id
            done = at(here, "import", lost, "region=west", f"image={theirs}")
            assert (done.status, "region west" in done.err) == (1, True)
            done = at(here, "import", lost, "region=east", f"image={lost}")
            assert (done.status, f"image {lost} not found" in done.err) == (1, True)


@pytest.mark.slow
def test_plugins_do_their_work(serve: Serve, tmp_path: Path) -> None:
    """Decompressed, converted and described, by the settings of a Glance."""
    settings = tmp_path / "glance-image-import.conf"
    settings.write_text(
        "[image_import_opts]\n"
        "image_import_plugins = [image_decompression, image_conversion, inject_image_metadata]\n"
        "max_parallel_stores = 2\n"
        '[inject_metadata_properties]\ninject = "origin":"import"\nignore_user_roles =\n'
        "[image_conversion]\noutput_format = raw\n"
        "[headrace]\nexpansion_ratio = 2000\n"
    )
    server = serve("--config-file", str(settings))
    packed = tmp_path / "disk.qcow2.gz"
    packed.write_bytes(gzip.compress(qemu_image(tmp_path / "disk", "qcow2").read_bytes()))
    env = {"HEADRACE_URL": server.url}
    image_id = run("add", "name=packed", "disk_format=qcow2", env=env).image_id
    done = run("import", image_id, f"path={packed}", env=env)
    assert (done.status, done.err) == (0, "")
    found = json.loads(run("show", image_id, "--json", env=env).out)
    assert (found["disk_format"], found["size"], found["origin"]) == (
        "raw", VIRTUAL_SIZE, "import",
    )  # fmt: skip
    assert (server.image_dir / image_id).stat().st_size == VIRTUAL_SIZE


def test_a_plugin_without_its_program_refuses_the_start(tmp_path: Path) -> None:
    done = run(
        "serve",
        "--port=0",
        env={
            "OS_HEADRACE__STATE_DIR": str(tmp_path),
            "OS_IMAGE_IMPORT_OPTS__IMAGE_IMPORT_PLUGINS": "[image_conversion]",
            "PATH": "/nowhere",
        },
    )
    assert done.status != 0
    assert "image_conversion needs the program qemu-img" in done.err


def test_a_rehearsal_imports_nothing(call: Call) -> None:
    image_id = record(call, "rehearsed")
    done = call("import", image_id, "uri=http://example.com/x", "--dry-run")
    assert done.out == f"Would import image {image_id} rehearsed by web-download\n"
    assert json.loads(call("show", image_id, "--json").out)["status"] == "queued"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("uri=http://a/", "path=b"),
        ("method=web-download",),
        ("method=copy-image", "uri=http://a/"),
        ("uri=http://a/", "region=b", "image=c"),
        ("region=a",),
        ("image=a",),
        ("method=glance-download",),
        ("url=http://a/",),
    ],
)
def test_words_that_do_not_go_together(headrace: Headrace, words: tuple[str, ...]) -> None:
    assert headrace("import", "any", *words).status == 2


def test_completion(several: Serving) -> None:
    assert complete("headrace import any me", several.url) == ["method="]
    assert complete("headrace import any method=web", several.url) == ["web-download"]
