"""The one place that joins the parts, and makes the application of them."""

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import falcon
from oslo_config import cfg

from headrace import config, errors, keystone_settings, settings, store_settings
from headrace.api import answers, auth, backends, delivery, versions
from headrace.api.audit import Audit
from headrace.api.basic import Basic
from headrace.api.cors import Cors, CorsRules
from headrace.api.gate import Application, Behind, Gate
from headrace.api.monitoring import Monitoring
from headrace.api.offload import Offload
from headrace.api.policy import Policies
from headrace.api.routes import routes
from headrace.api.schemas import Fields
from headrace.api.traffic import Traffic
from headrace.api.whereabouts import Whereabouts
from headrace.cache.directory import Directory
from headrace.cache.filling import Outcome
from headrace.db import engine as db
from headrace.db import migrate
from headrace.metrics import Metrics
from headrace.model import Resource
from headrace.service import protections
from headrace.service.accounts import Accounts
from headrace.service.cache import Cache
from headrace.service.cache_contents import CacheContents
from headrace.service.content import Content
from headrace.service.conversion import Conversion
from headrace.service.decompression import Decompression
from headrace.service.housekeeping import Housekeeping
from headrace.service.images import Images, Limits
from headrace.service.imports import Imports
from headrace.service.jobs import JobRules, Jobs
from headrace.service.landing import Landing, UploadRules
from headrace.service.locations import LocationRules, Locations
from headrace.service.logins import Logins
from headrace.service.members import Members
from headrace.service.metadefs import Metadefs
from headrace.service.plugins import Injection, Plugin, no_op
from headrace.service.prefetch import Prefetch
from headrace.service.quota import ProjectLimits, Quota
from headrace.service.regions import Regions
from headrace.service.staging import Staging
from headrace.service.stores import Stores
from headrace.service.tasks import Tasks
from headrace.stores.arrivals import Arrivals
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.origin import Origins
from headrace.transfer import engine

_log = logging.getLogger(__name__)


def build(conf: cfg.ConfigOpts, authenticate: auth.Authenticate | None = None) -> Application:
    """The application that ``conf`` describes; creates what is missing (database, directories).

    ``authenticate`` takes the place of the authentication that ``conf`` names.

    Raises ConfigurationError.  Connections and threads are made later, in the process that
    serves: a host may fork in between.
    """
    engine.enable(conf.headrace.sendfile)
    _make_state_dir(conf)
    database = db.connect(config.database_url(conf))
    migrate.prepare(database)
    database.close()  # no connection may cross the fork
    arrivals = Arrivals(config.offload_dir(conf)) if conf.headrace.upload_offload else None
    stores = backends.registry(conf)
    for directory in config.image_dirs(conf):
        _test_zero_copy(directory)
    monitoring = Monitoring(_metrics(conf))
    fields = Fields(conf.image_format.container_formats, conf.image_format.disk_formats)
    limits = Limits(conf.image_property_quota, conf.image_tag_quota)
    area = FilesystemStore(settings.STAGING, config.staging_dir(conf))
    protected = property_protections(conf)
    quota = _quota(conf, database)
    cache = _cache(conf, database, monitoring.metrics)
    prefetch = None if cache is None else Prefetch(database, stores, cache)
    images = Images(
        database,
        stores,
        area,
        fields.check,
        limits,
        _now,
        delayed_delete=conf.delayed_delete,
        protections=protected,
        quota=quota,
        forget=None if cache is None else cache.evict,
    )
    landing = Landing(_upload_rules(conf))
    content = Content(database, stores, landing, _now, quota, cache)
    staging = Staging(database, area, landing, _now, quota)
    origins = Origins(backends.destinations(conf), stall=conf.headrace.stall_timeout)
    regions = Regions(
        conf.headrace.glance_regions or {},
        conf.glance_download_properties.extra_properties,
        fields.check,
        conf.image_property_quota,
        conf.headrace.stall_timeout,
    )
    rules = _job_rules(conf)
    audit = _audit(conf, monitoring.metrics)
    observe = monitoring.traffic.job if audit is None else audit.job(monitoring.traffic.job)
    jobs = Jobs(database, stores, staging, landing, origins, regions, _now, rules, observe)
    monitoring.metrics.watch(
        "headrace_imports_waiting", "Imports that have not begun.", jobs.waiting
    )
    methods = conf.enabled_import_methods
    location_rules = LocationRules(
        conf.image_location_quota, conf.do_secure_hash, conf.http_retries
    )
    locations = Locations(database, stores, images, location_rules, landing.rules, _now, quota)
    imports = Imports(database, stores, jobs, origins, regions, methods, _now, quota)
    cors = _cors_rules(conf)
    usual = _AUTHENTICATION[conf.headrace.auth_strategy](conf, cors.named)
    policy = policies(conf, protected)

    gate = Gate(
        authenticate or usual,
        policy,
        Cors(cors) if cors.origins else None,
        conf.max_request_id_length,
        monitoring.metrics.requests,
    )
    app = falcon.App(middleware=[gate] if audit is None else [gate, audit])
    for kind, handler in answers.error_handlers(monitoring.metrics.errors).items():
        app.add_error_handler(kind, handler)
    paths = routes(
        images,
        content,
        Members(database, conf.image_member_quota, _now),
        Metadefs(database, _now),
        locations,
        Stores(database, stores, images, _now),
        staging,
        imports,
        Tasks(database, images, imports, _now),
        CacheContents(database, cache, prefetch),
        quota,
        Whereabouts(stores, conf.show_image_direct_url, conf.show_multiple_locations),
        fields,
        _delivery(conf, monitoring.traffic),
        Offload(arrivals),
        monitoring.traffic,
        monitoring.routes(conf.headrace.metrics),
        max_uploads=conf.headrace.max_uploads,
        default_limit=conf.limit_param_default,
        max_limit=conf.api_limit_max,
        public_endpoint=conf.public_endpoint,
        healthcheck_file=conf.healthcheck.disable_by_file_path,
    )
    for path, resource in paths.items():
        app.add_route(path, resource)

    def housekeeping() -> Housekeeping:
        lease = conf.headrace.upload_lease
        scrub_time = conf.scrub_time if conf.delayed_delete else None
        return Housekeeping(
            database,
            stores,
            images,
            content,
            locations,
            staging,
            jobs,
            lease,
            _now,
            scrub_time=scrub_time,
            task_life=rules.task_life,
            note=None if audit is None else audit.note,
            cache=cache,
            prefetch=prefetch,
            arrivals=arrivals,
        )

    several = bool(config.backends(conf))
    known_versions = versions.segments(several=several, cached=cache is not None)
    behind: list[Behind] = [jobs] if cache is None else [jobs, cache]
    return Application(app, database, behind, housekeeping, monitoring, known_versions, policy)


def _without_authentication(conf: cfg.ConfigOpts, origins: frozenset[str]) -> auth.Authenticate:
    if conf.headrace.unauthenticated_ok:
        return auth.everybody
    return partial(auth.this_machine, origins=origins)


def _by_password(conf: cfg.ConfigOpts, origins: frozenset[str]) -> auth.Authenticate:
    accounts = Accounts(config.user_file(conf))
    # Not all threads: the others go on with what needs no check.
    return Basic(Logins(accounts, waiting=max(1, conf.headrace.threads // 2)), origins)


def _by_token(conf: cfg.ConfigOpts, _: frozenset[str]) -> auth.Authenticate:
    # A page may come from anywhere: no browser adds a token of its own accord.
    # Only here: these libraries take as long to load as all else.
    from keystoneauth1 import loading
    from keystoneauth1.exceptions import ClientException
    from keystonemiddleware.auth_token import AuthProtocol
    from keystonemiddleware.exceptions import ConfigurationError

    from headrace.api import keystone

    options = conf.keystone_authtoken
    # It decides at once: who has no token does not come as far, and an answer that is missing is
    # then not taken for a refusal.
    how = {"oslo_config_config": conf, "delay_auth_decision": False}
    kept = options.token_cache_time
    if options.memcached_servers:
        kept = min(kept, keystone.BESIDE_MEMCACHED)
    else:
        how["cache"] = keystone.CACHE
    try:
        middleware = AuthProtocol(keystone.confirmed, how)
        where = middleware.www_authenticate_uri
        own = loading.load_auth_from_conf_options(conf, keystone_settings.GROUP)
    except (ClientException, ConfigurationError) as error:
        raise errors.ConfigurationError(reason=f"[keystone_authtoken] {error}") from error
    session = loading.session.Session().load_from_options(
        insecure=options.insecure,
        cacert=options.cafile,
        cert=options.certfile,
        key=options.keyfile,
        timeout=options.http_connect_timeout,
    )
    return keystone.Keystone(
        middleware,
        where,
        partial(session.get_token, own),
        kept=kept,
        questions=max(1, conf.headrace.threads // 2),
        anonymous=conf.allow_anonymous_access,
    )


# By auth_strategy: from the settings, and the origins whose web pages may use the service.
_AUTHENTICATION: dict[str, Callable[[cfg.ConfigOpts, frozenset[str]], auth.Authenticate]] = {
    "none": _without_authentication,
    "http_basic": _by_password,
    "keystone": _by_token,
}


def _now() -> datetime:
    """The time as the database stores it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _make_state_dir(conf: cfg.ConfigOpts) -> None:
    """Make the state directory, if anything is to lie in it."""
    stores = store_settings.described(conf)
    windows = {each.kind for each in stores} - {"file", *store_settings.READ_ONLY}  # on their way
    images = any(
        each.kind == "file" and not conf[each.group].filesystem_store_datadir for each in stores
    )
    if conf.database.connection and not images and not windows:
        return
    directory = config.state_dir(conf)
    try:
        os.makedirs(directory, mode=0o750, exist_ok=True)
    except OSError as error:
        raise errors.ConfigurationError(
            reason=f"state directory {directory}: {error.strerror}"
        ) from error


def _test_zero_copy(directory: str) -> None:
    """Find out before it matters whether the image files can be trusted to sendfile and splice."""
    try:
        fault = engine.self_test(directory)
    except errors.Error as error:
        _log.warning("zero-copy could not be tested in %s: %s", directory, error)
    else:
        if fault:
            _log.warning("bytes of %s are copied: %s", directory, fault)


def policies(conf: cfg.ConfigOpts, protected: protections.Protections | None = None) -> Policies:
    """The policy files that ``conf`` describes, read; raises ConfigurationError."""
    options = conf.oslo_policy
    return Policies(
        config.beside(conf, options.policy_file),
        [config.beside(conf, each) for each in options.policy_dirs],
        required=options.policy_file != settings.POLICY_FILE,
        new_defaults=options.enforce_new_defaults,
        protections=protected,
    )


def property_protections(conf: cfg.ConfigOpts) -> protections.Protections | None:
    """Those of the file that ``conf`` names, if it names one; raises ConfigurationError."""
    if not conf.property_protection_file:
        return None
    form = protections.Format(conf.property_protection_rule_format)
    return protections.read(config.beside(conf, conf.property_protection_file), form)


def _cors_rules(conf: cfg.ConfigOpts) -> CorsRules:
    return CorsRules(
        origins=frozenset(conf.cors.allowed_origin or ()),
        credentials=conf.cors.allow_credentials,
        exposed=tuple(conf.cors.expose_headers),
        max_age=conf.cors.max_age,
        methods=tuple(conf.cors.allow_methods),
        headers=tuple(conf.cors.allow_headers),
    )


def _metrics(conf: cfg.ConfigOpts) -> Metrics:
    """What is counted; of this process alone, where the others cannot be met."""
    if conf.headrace.metrics == "off":
        return Metrics()
    directory = config.metrics_dir(conf)
    try:
        return Metrics(directory)
    except OSError as error:
        _log.warning("each process has metrics of its own: %s: %s", directory, error.strerror)
        return Metrics()


def _audit(conf: cfg.ConfigOpts, metrics: Metrics) -> Audit | None:
    """The audit log, if there is to be one; raises ConfigurationError."""
    path = config.audit_log(conf)
    if path is None:
        return None
    return Audit(path, metrics.audit_lost, reads=conf.headrace.audit_reads)


def _delivery(conf: cfg.ConfigOpts, traffic: Traffic) -> delivery.Delivery:
    return delivery.Delivery(
        delivery.Mode(conf.headrace.delivery),
        config.front_locations(conf),
        conf.headrace.stall_timeout,
        traffic,
        conf.headrace.downloads_per_client,
    )


def _quota(conf: cfg.ConfigOpts, database: db.Database) -> Quota | None:
    """The quotas of projects; None when nothing is limited."""
    if conf.use_keystone_limits:
        # Only here: what it needs takes longer to load than all else.
        from headrace.service.limits import KeystoneLimits

        asked = KeystoneLimits(
            keystone_settings.limits(conf),
            kept=conf.headrace.limit_cache_time,
            waiting=max(1, conf.headrace.threads // 2),
        )
        return Quota(database, asked.of)
    found = config.project_limits(conf)
    if not found:
        return None
    everybody: dict[Resource, int] = {}
    projects: dict[str, dict[Resource, int]] = {}
    for name, limits in found.items():
        for project, limit in limits.items():
            of_project = everybody if project is None else projects.setdefault(project, {})
            of_project[Resource(name)] = limit
    return Quota(database, ProjectLimits(everybody, projects).of)


def _cache(conf: cfg.ConfigOpts, database: db.Database, metrics: Metrics) -> Cache | None:
    """The image cache, if there is to be one; raises ConfigurationError."""
    path = config.image_cache_dir(conf)
    if path is None:
        return None
    directory = Directory(path, conf.image_cache_max_size)
    _test_zero_copy(directory.path)

    def count_fill(brought: int, outcome: Outcome) -> None:
        metrics.cache_fills.labels(outcome).inc()
        metrics.cache_bytes.inc(brought)

    cache = Cache(
        database,
        directory,
        stall=conf.headrace.stall_timeout,
        keep=conf.image_cache_stall_time,
        fronted=delivery.Mode(conf.headrace.delivery) in delivery.FRONTS,
        lookups=lambda how: metrics.cache_lookups.labels(how).inc(),
        fills=count_fill,
    )
    metrics.watch(
        "headrace_cache_filling", "Fills of the cache under way.", lambda: len(cache.active())
    )
    metrics.watch_shared("headrace_cache_bytes", "Bytes that lie in the cache.", cache.size)
    return cache


def _upload_rules(conf: cfg.ConfigOpts) -> UploadRules:
    return UploadRules(
        size_cap=conf.image_size_cap,
        hashing_algorithm=conf.hashing_algorithm,
        legacy_checksum=conf.headrace.legacy_checksum == "inline",
        require_format_match=conf.image_format.require_image_format_match,
        vmdk_allowed_types=tuple(conf.image_format.vmdk_allowed_types),
        gpt_safety_nonfatal=tuple(conf.image_format.gpt_safety_checks_nonfatal),
    )


def _job_rules(conf: cfg.ConfigOpts) -> JobRules:
    """How imports are done; raises ConfigurationError when a plugin cannot do its work."""
    cap, ratio = conf.image_size_cap, conf.headrace.expansion_ratio
    makers: dict[str, Callable[[], Plugin]] = {
        "no_op": lambda: no_op,
        "inject_image_metadata": lambda: Injection(
            # In Glance's guide both stand in quotes.
            {
                name.strip("'\""): value.strip("'\"")
                for name, value in conf.inject_metadata_properties.inject.items()
            },
            conf.inject_metadata_properties.ignore_user_roles,
        ),
        "image_decompression": lambda: Decompression(cap, ratio),
        "image_conversion": lambda: Conversion(
            conf.image_conversion.output_format,
            cap,
            ratio,
            tuple(conf.image_format.vmdk_allowed_types),
            tuple(conf.image_format.gpt_safety_checks_nonfatal),
        ),
    }
    options = conf.image_import_opts
    return JobRules(
        conf.wsgi.task_pool_threads,
        options.max_parallel_stores,
        tuple(makers[name]() for name in options.image_import_plugins),
        timedelta(hours=conf.task.task_time_to_live),
    )
