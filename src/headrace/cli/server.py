"""headrace serve: the embedded server.  The server's half is loaded only when it runs."""

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from headrace.cli import settings
from headrace.cli.session import Seconds, Session
from headrace.errors import UsageError

if TYPE_CHECKING:
    from oslo_config import cfg

    from headrace.server.transfers import TransferOptions

FRONTS: dict[str, dict[tuple[str, str], object]] = {
    "nginx": {
        ("headrace", "delivery"): "x-accel-redirect",
        ("headrace", "upload_offload"): True,
    },
    "apache": {
        ("headrace", "delivery"): "x-sendfile",
        ("headrace", "upload_offload"): False,
    },
    "haproxy": {
        ("headrace", "delivery"): "auto",
        ("headrace", "upload_offload"): False,
    },
}


@click.command()
@settings.settings_options
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9292,
    show_default=True,
    help="The port to listen on; 0 picks a free one.",
)
@click.option(
    "--unix-socket",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="Listen here instead, for a front end on this machine; its user and group may connect.",
)
@click.option(
    "--behind",
    type=click.Choice(list(FRONTS)),
    help="Serve as `headrace config` of this server expects: on a Unix socket in the state "
    "directory, image data sent by nginx or Apache, uploads received by nginx.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."
)
@click.option(
    "--drain-timeout",
    type=Seconds(),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long transfers in flight may go on after SIGTERM.",
)
@settings.auth_option
@click.option(
    "--unauthenticated-ok",
    is_flag=True,
    help="Serve other machines although nobody has to show who they are.",
)
@click.option("-d", "--debug", is_flag=True, help="Log more.")
@click.pass_obj
def serve(
    session: Session,
    *,
    state_dir: str | None,
    host: str,
    port: int,
    unix_socket: str | None,
    behind: str | None,
    workers: int,
    config_files: tuple[str, ...],
    drain_timeout: float,
    auth_strategy: str | None,
    unauthenticated_ok: bool,
    debug: bool,
) -> None:
    """Run the image service.

    Without any settings it keeps all it has in the state directory and serves this machine only;
    with --auth http_basic, whoever `headrace user` has added.
    SIGTERM stops it: no new connections, transfers in flight are finished.  SIGHUP has new worker
    processes read the settings again; those there were finish their transfers, however long.

    Exit status: 0 stopped by a signal, 1 not started, 2 wrongly called, 3 or 4 not started in a
    worker process.
    """
    if session != Session(debug=session.debug):
        raise UsageError(
            reason="serve takes its options after its name; of those before it, --debug only"
        )
    given = map(click.get_current_context().get_parameter_source, ("host", "port"))
    if (unix_socket or behind) and ParameterSource.COMMANDLINE in given:
        raise UsageError(reason="a Unix socket has no --host and no --port")
    # Only here: a command that talks to a service starts without the server's libraries.
    from headrace import config, foreign, log
    from headrace.api.auth import is_loopback
    from headrace.server import embedded, exposure
    from headrace.server.options import ServeOptions

    def prepared() -> tuple[ServeOptions, embedded.Load]:
        """By the settings as they are now; they are read again on SIGHUP."""
        overrides = {**FRONTS[behind]} if behind is not None else {}
        if unauthenticated_ok:
            overrides["headrace", "unauthenticated_ok"] = True
        if auth_strategy is not None:
            overrides["headrace", "auth_strategy"] = auth_strategy
        conf = settings.load(state_dir, config_files, overrides)
        where = unix_socket
        if behind is not None and unix_socket is None:
            where = config.unix_socket(conf)
        strategy, anybody = conf.headrace.auth_strategy, conf.headrace.unauthenticated_ok
        local = where is None and is_loopback(host)
        if strategy == "none" and not anybody and not local:
            whom = "nobody who comes through a proxy" if where else "no other machine"
            raise UsageError(
                reason=f"no authentication is configured, so {whom} is served; "
                "--auth http_basic asks for passwords, --unauthenticated-ok serves everybody who "
                "can connect"
            )
        log.configure(debug or session.debug or conf.debug)
        log.tell(foreign.settings(conf))
        log.tell(exposure.statements(strategy, anybody, in_clear=not (where or local)))
        options = ServeOptions(
            host=host,
            port=port,
            unix_socket=where,
            workers=workers,
            drain_timeout=drain_timeout,
            threads=conf.headrace.threads,
            stall_timeout=conf.headrace.stall_timeout,
            max_connections=conf.headrace.max_connections,
            max_requests=conf.headrace.max_requests,
            metrics_address=config.metrics_address(conf),
            transfers=_transfers(conf),
        )

        def load() -> embedded.Application:
            # Where the host wants it: a single worker loads it itself, the master stays small.
            from headrace.api import app

            return app.build(conf)

        return options, load

    embedded.serve(*prepared(), renew=prepared)


def _transfers(conf: "cfg.ConfigOpts") -> "TransferOptions":
    from headrace.server.transfers import TransferOptions

    return TransferOptions(
        threads=conf.headrace.transfer_threads,
        turn=conf.headrace.transfer_turn,
        unsent=conf.headrace.transfer_unsent,
        minimum_rate=conf.headrace.minimum_rate,
        read_ahead=conf.headrace.read_ahead,
        drop_behind=conf.headrace.drop_behind,
        rate=conf.headrace.download_rate,
        total_rate=conf.headrace.total_download_rate,
    )
