"""/metrics under other hosts, and behind fronts: through those nobody is this machine."""

from tests.deploy.conftest import Deployed, path
from tests.deploy.test_metrics import parsed, value

FRONTS = {"nginx", "apache", "haproxy"}
DOWNLOADS = 10


def test_all_processes_of_a_host_are_one_service(deployed: Deployed) -> None:
    name = deployed.host.name
    image = deployed.whole
    for _ in range(DOWNLOADS):
        assert deployed.ask("GET", path(image), "Connection: close").body == deployed.data
    if name in FRONTS:
        assert deployed.ask("GET", "/metrics").status == 403
        return
    # Whichever process answers.
    for _ in range(5):
        found = parsed(deployed.ask("GET", "/metrics"))
        done = {
            (dict(labels)["way"], dict(labels)["result"]): number
            for (metric, labels), number in found.items()
            if metric == "headrace_transfers_total" and dict(labels)["direction"] == "download"
        }
        assert sum(done.values()) == DOWNLOADS, done
        moved = sum(
            number
            for (metric, labels), number in found.items()
            if metric == "headrace_transfer_bytes_total" and dict(labels)["direction"] == "download"
        )
        assert moved == DOWNLOADS * len(deployed.data)
        assert value(found, "processes") >= 1
        assert deployed.ask("GET", "/metrics/transfers").json == {"transfers": []}
