"""headrace policy: what the rules are, and what they would say."""

from pathlib import Path

import pytest
import yaml

from headrace.api.rules import RULES
from tests.cli.conftest import run
from tools.serving import serving

RULE = "role:auditor and project_id:%(project_id)s"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump({"get_image": RULE}))
    return tmp_path


@pytest.mark.slow
def test_rules_are_shown_with_where_they_are_from(state: Path) -> None:
    shown = run("policy", "show", "get_image", "delete_image", "--state-dir", state)
    assert shown.status == 0, shown.err
    assert yaml.safe_load(shown.out) == {
        "get_image": RULE, "delete_image": RULES["delete_image"].check,
    }  # fmt: skip
    where = [line.rpartition(" — ")[2] for line in shown.out.splitlines() if line[0] == "#"]
    assert where == [str(state / "policy.yaml"), "as usual"]
    everything = yaml.safe_load(run("policy", "show", "--state-dir", state).out)
    assert everything.keys() == RULES.keys()


def test_a_sample_changes_nothing(tmp_path: Path) -> None:
    sample = run("policy", "sample")
    assert (sample.status, yaml.safe_load(sample.out)) == (0, None)
    used = "\n".join(
        line.removeprefix("#") for line in sample.out.splitlines() if line.startswith('#"')
    )
    assert yaml.safe_load(used) == {name: rule.check for name, rule in RULES.items()}
    (tmp_path / "policy.yaml").write_text(used)
    assert run("policy", "show", "--state-dir", tmp_path).status == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("get_image", "--as", "project=p,roles=auditor", "--image", "owner=p"), 0),
        (("get_image", "--as", "project=p,roles=member,auditor", "--image", "owner=p"), 0),
        (("get_image", "--as", "project=p,roles=admin", "--image", "owner=p"), 3),
        (("delete_image", "--as", "project=p,roles=member", "--image", "owner=p"), 0),
        (("delete_image", "--as", "project=p,roles=reader", "--image", "owner=p"), 3),
        (("download_image", "--as", "project=q,roles=member",
          "--image", "owner=p,visibility=private"), 3),
        (("download_image", "--as", "project=q,roles=member",
          "--image", "owner=p,visibility=public,os_distro=debian"), 0),
        (("get_images", "--as", "project=p,roles=reader"), 0),
        (("delete_image", "--as", "project=p,roles=member"), 0),
        (("delete_image", "--as", "roles=member"), 3),
        (("get_metadef_tags", "--as", "project=p,roles=reader"), 0),
        (("add_metadef_tag", "--as", "project=p,roles=reader"), 3),
        (("get_imges", "--as", "project=p"), 2),
        (("get_images", "--as", "projekt=p"), 2),
        (("get_images", "--as", "member"), 2),
        (("get_image", "--as", "project=p", "--image", "visibility=secret"), 2),
        (("get_image", "--as", "project=p", "--image", "size=1"), 2),
    ],
)  # fmt: skip
def test_a_rule_is_tried(state: Path, words: tuple[str, ...], status: int) -> None:
    tried = run("policy", "check", *words, "--state-dir", state)
    assert tried.status == status, tried.err
    assert bool(tried.err) == (status == 2)
    assert tried.out.startswith({0: "permitted", 3: "refused"}.get(status, ""))
    if words[0] == "get_image" and status != 2:
        assert str(state / "policy.yaml") in tried.out


def test_a_rule_is_tried_on_an_image_of_record(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        env = {"HEADRACE_URL": server.url}
        made = run("add", "name=i", "owner=p", "is_public=no", stdin=b"", env=env)
        image_id = made.image_id
    for project, status, word in (("p", 0, "permitted"), ("q", 3, "not even seen")):
        tried = run(
            "policy", "check", "get_image", "--as", f"project={project},roles=reader",
            "--image", image_id, "--state-dir", tmp_path,
        )  # fmt: skip
        assert (tried.status, tried.out.startswith(word)) == (status, True), tried


def test_a_broken_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("get_image: nonsense")
    for words in (("show",), ("check", "get_image", "--as", "project=p")):
        refused = run("policy", *words, "--state-dir", tmp_path)
        assert refused.status == 1
        assert refused.out == ""
        assert "get_image is not understood" in refused.err


def test_a_service_with_a_broken_file_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("get_image: nonsense")
    refused = run("serve", "--port", "0", "--state-dir", tmp_path)
    assert refused.status != 0
    assert "get_image is not understood" in refused.err
