"""The settings of ``[headrace]``, one row each: what Glance has not, or says elsewhere."""

from oslo_config import cfg

_MIB = 1 << 20

AUTH_STRATEGIES = ("none", "http_basic", "keystone")

METRICS = ("this-machine", "everybody", "off")
"""Who may see the metrics at the service's own address."""

PROJECT_LIMITS: list[cfg.Opt] = [
    cfg.ListOpt(
        name,
        default=[],
        help=f"{what}: a number for every project, PROJECT:NUMBER for one that may have more or "
        "less; none, or a negative one: any number. The project of images without an owner is "
        "nameless.",
    )
    for name, what in (
        ("image_size_total", "MiB of data that a project may have, each copy of an image counted"),
        ("image_stage_total", "MiB of data of a project that may wait to be imported"),
        ("image_count_total", "Images that a project may have"),
        ("image_count_uploading", "Images of a project whose data may be coming at a time"),
    )
]
"""Settings of numbers for every project, and for single ones."""

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "state_dir",
        default="",
        sample_default="/var/lib/headrace",
        help="Directory of the database and the images of a server that runs alone; when "
        "unset, /var/lib/headrace as root and $XDG_STATE_HOME/headrace otherwise.",
    ),
    cfg.StrOpt(
        "auth_strategy",
        default="none",
        choices=AUTH_STRATEGIES,
        help="How callers show who they are. 'none': they do not; everybody is an "
        "administrator, so only this machine is served. 'http_basic': by name and password, of "
        "the users that `headrace user` knows. 'keystone': by a token of the Keystone of "
        "[keystone_authtoken]; this is the default where [paste_deploy] flavor names it.",
    ),
    cfg.StrOpt(
        "http_basic_auth_user_file",
        help="For http_basic: the users and the hashes of their passwords, by bcrypt, as "
        "`htpasswd -B` writes them; what they are is said in the file with '.roles' behind its "
        "name. Unset: 'htpasswd' in the state directory.",
    ),
    cfg.BoolOpt(
        "unauthenticated_ok",
        default=False,
        help="With auth_strategy 'none': serve other machines, too. Anybody who reaches the "
        "port may then read, add and delete images.",
    ),
    cfg.BoolOpt(
        "sendfile",
        default=True,
        help="Move bytes by sendfile, splice and copy_file_range; off: by copying. The "
        "environment variable HEADRACE_SENDFILE=off does the same.",
    ),
    cfg.StrOpt(
        "delivery",
        default="auto",
        choices=["auto", "file_wrapper", "x-accel-redirect", "x-sendfile", "copy"],
        help="How image data leaves. 'auto' does what the host is known to do well; "
        "'file_wrapper' trusts a host that is not known; 'x-accel-redirect' and 'x-sendfile' "
        "have nginx or Apache, through which all requests must then come, send the file; "
        "'copy' reads and writes.",
    ),
    cfg.StrOpt(
        "x_accel_location",
        default="/headrace-images/",
        help="The internal location of nginx that is the image directory; below it are those of "
        "other stores and of the image cache.",
    ),
    cfg.BoolOpt(
        "store_redirect",
        default=False,
        help="With delivery 'x-accel-redirect': have nginx fetch the data of an image that lies in "
        "an S3 store, or in a Swift whose swift_temp_url_key is set, from there itself, by a URL "
        "that is signed for a minute and that no client sees.",
    ),
    cfg.BoolOpt(
        "upload_offload",
        default=False,
        help="Take uploads that nginx has written to files in '.headrace-uploads' of the image "
        "directory, and told of through a Unix socket. Its worker processes must run as the "
        "same user.",
    ),
    cfg.ListOpt(
        "location_directories",
        default=[],
        help="Directories below which administrators may register files in place "
        "(location=file:///…), as they are and where they are. They may hold nothing that "
        "others put there, and no store.",
    ),
    *PROJECT_LIMITS,
    cfg.StrOpt(
        "legacy_checksum",
        default="inline",
        choices=["inline", "off"],
        help="Whether the MD5 checksum is computed with every upload. 'off' makes uploads "
        "cheaper; images then have no checksum, only os_hash_value.",
    ),
    cfg.IntOpt(
        "expansion_ratio",
        default=200,
        min=1,
        help="How many bytes image_decompression and image_conversion may make at most of each "
        "that came in; of a disk in the format raw, those that are no hole.",
    ),
    cfg.FloatOpt(
        "stall_timeout",
        default=60.0,
        min=1.0,
        help="Seconds for which a peer may move no byte before its transfer is given up.",
    ),
    cfg.IntOpt(
        "minimum_rate",
        default=1024,
        min=0,
        help="Bytes a second that the client of a download must take, over stall_timeout, from "
        "the embedded server; 0: any.",
    ),
    cfg.DictOpt(
        "glance_regions",
        secret=True,
        help="Image services that glance-download may take images from, by their regions' "
        "names, such as 'east:https://image.east.example.com'; the catalog of the caller's "
        "token has others.",
    ),
    cfg.FloatOpt(
        "limit_cache_time",
        default=30.0,
        min=0.0,
        help="Seconds for which each process keeps what Keystone says of a project's limits, "
        "with use_keystone_limits.",
    ),
    cfg.FloatOpt(
        "upload_lease",
        default=60.0,
        min=3.0,
        help="Seconds after the last heartbeat of a worker on another machine when its "
        "unfinished uploads go back to queued.",
    ),
    cfg.IntOpt(
        "threads",
        default=64,
        min=1,
        help="Requests one worker of the embedded server handles at a time. A download that "
        "waits for its client takes none of them.",
    ),
    cfg.IntOpt(
        "max_uploads",
        default=32,
        min=1,
        help="Uploads one worker takes at a time, each of which holds a thread; more are "
        "answered 503 with Retry-After. Fewer than threads, or uploads can stop all else.",
    ),
    cfg.IntOpt(
        "max_remote_downloads",
        default=16,
        min=1,
        help="Transfers from each store that is elsewhere (of any type but file) that one worker "
        "has at a time, each of which holds a thread; more are answered 503 with Retry-After.",
    ),
    cfg.IntOpt(
        "max_connections",
        default=16384,
        min=64,
        help="Connections one worker of the embedded server has at a time, if as many files "
        "may be open; more wait to be accepted.",
    ),
    cfg.IntOpt(
        "max_requests",
        default=0,
        min=0,
        help="Requests after which a worker of the embedded server is replaced by a new one "
        "and only finishes its transfers, however long they take; up to a tenth more, by "
        "chance; 0: never.",
    ),
    cfg.IntOpt(
        "transfer_threads",
        default=2,
        min=1,
        help="Threads of a worker of the embedded server that send to all clients that are not "
        "done at once.",
    ),
    cfg.IntOpt(
        "transfer_turn",
        default=2 * _MIB,
        min=64 * 1024,
        help="Most bytes one download sends before the next has its turn.",
    ),
    cfg.IntOpt(
        "transfer_unsent",
        default=128 * 1024,
        min=0,
        help="Most bytes of a download that wait in the kernel without being on the wire "
        "(TCP_NOTSENT_LOWAT); 0: as many as fit. Without it thousands of slow clients fill the "
        "memory that TCP may have.",
    ),
    cfg.IntOpt(
        "read_ahead",
        default=8 * _MIB,
        min=_MIB,
        help="Bytes of an image that are read in at a time where it is not in memory, while "
        "other downloads go on.",
    ),
    cfg.IntOpt(
        "drop_behind",
        default=0,
        min=0,
        help="Size in bytes from which on the data of an image that had to be read in leaves "
        "memory again behind its download, unless others of the worker have it under way; 0: "
        "it stays, as long as the system likes. For a store of images that are fetched once.",
    ),
    cfg.StrOpt(
        "metrics",
        default="this-machine",
        help="Who may see /metrics and /metrics/transfers: 'this-machine', that is, programs "
        "on it that come to the service directly; 'everybody'; nobody ('off'). Or an address "
        "HOST:PORT at which the embedded server listens for nothing else: then they are there, "
        "for whoever reaches it, and not at the service's own.",
    ),
    cfg.StrOpt(
        "audit_log",
        help="File that one line of JSON is appended to for everything that is done to images: "
        "who, what, when, from where, with what result (CADF); '-': the stream of the log. "
        "Unset: none is written.",
    ),
    cfg.BoolOpt(
        "audit_reads",
        default=False,
        help="Write lists and shows there, too; not only changes, downloads and refusals.",
    ),
    cfg.IntOpt(
        "downloads_per_client",
        default=0,
        min=0,
        help="Downloads that one address may have under way at a time at one worker of the "
        "embedded server, more being answered 429 with Retry-After; 0: any number. All that "
        "comes through a proxy has its address.",
    ),
    cfg.IntOpt(
        "download_rate",
        default=0,
        min=0,
        help="Most bytes a second of each download from the embedded server; 0: no limit.",
    ),
    cfg.IntOpt(
        "total_download_rate",
        default=0,
        min=0,
        help="Most bytes a second of all downloads of one worker; 0: no limit.",
    ),
]
