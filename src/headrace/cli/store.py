"""headrace store: looking after the stores of a service."""

from dataclasses import asdict

import click

from headrace.cli import output, settings
from headrace.cli.session import json_option

EXIT_FAULTS = 3


@click.group("store")
def command() -> None:
    """Look after a service's stores."""


@command.command("check", short_help="Compare what is on record with what the stores hold.")
@settings.settings_options
@click.option("--verify", is_flag=True, help="Read and hash all data, too.")
@json_option
def check(
    *, state_dir: str | None, config_files: tuple[str, ...], verify: bool, as_json: bool
) -> int:
    """Compare what is on record with what the stores hold; nothing is changed.

    Faults are data that is missing, that has another size or (with --verify) another hash than is
    on record, or that is on no record.  The service may go on meanwhile.

    Exit status: 0 no fault, 1 it could not be checked, 2 wrongly called, 3 there are faults.
    """
    from headrace import config
    from headrace.api import backends
    from headrace.db import engine, migrate
    from headrace.service.agreement import Agreement

    conf = settings.load(state_dir, config_files)
    database = engine.connect(config.database_url(conf))
    try:
        migrate.expect_ready(database)
        check = Agreement(database, backends.registry(conf), verify=verify)
        found = []
        for finding in check.run():
            found.append(finding)
            if not as_json:
                where = f" in store {finding.store}" if finding.store else ""
                detail = f": {finding.detail}" if finding.detail else ""
                output.write(f"{finding.image_id} {finding.fault}{where}{detail}")
    finally:
        database.close()
    checked = {"images": check.images, "files": check.files, "hashed_bytes": check.hashed}
    if as_json:
        output.write_json({"checked": checked, "faults": [asdict(each) for each in found]})
    else:
        output.write(f"{check.images} images and {check.files} files checked, {len(found)} faults")
    return EXIT_FAULTS if found else 0
