"""Settings of a service with several stores, as an environment."""

from pathlib import Path


def several_stores(directory: Path) -> dict[str, str]:
    """fast (the default one) and cheap, directories of these names; web, whose origins are of this
    machine; files below ``listed`` may be registered; locations are shown."""
    (directory / "listed").mkdir(parents=True, exist_ok=True)
    return {
        "OS_DEFAULT__ENABLED_BACKENDS": "fast:file,cheap:file,web:http",
        "OS_GLANCE_STORE__DEFAULT_BACKEND": "fast",
        "OS_FAST__FILESYSTEM_STORE_DATADIR": str(directory / "fast"),
        "OS_FAST__STORE_DESCRIPTION": "Solid state",
        "OS_FAST__WEIGHT": "10",
        "OS_CHEAP__FILESYSTEM_STORE_DATADIR": str(directory / "cheap"),
        "OS_IMPORT_FILTERING_OPTS__ALLOWED_HOSTS": "127.0.0.1",
        "OS_IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "",
        "OS_HEADRACE__LOCATION_DIRECTORIES": str(directory / "listed"),
        "OS_DEFAULT__SHOW_IMAGE_DIRECT_URL": "true",
        "OS_DEFAULT__SHOW_MULTIPLE_LOCATIONS": "true",
    }
