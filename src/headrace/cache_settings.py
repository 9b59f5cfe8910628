"""The settings of the image cache."""

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "image_cache_dir",
        help="Directory on a local file system where the data of remote stores is kept once it was "
        "downloaded, and whence it is sent from then on; all workers of this machine share it. "
        "Unset: there is no cache.",
    ),
    cfg.IntOpt(
        "image_cache_max_size",
        default=10 << 30,
        min=0,
        help="Most image data in it, in bytes: what is not used for longest makes room.",
    ),
    cfg.IntOpt(
        "image_cache_stall_time",
        default=86400,
        min=0,
        help="Seconds for which data is kept whose download was interrupted, to go on with.",
    ),
    cfg.StrOpt(
        "image_cache_driver",
        default="sqlite",
        choices=["sqlite", "centralized_db", "xattr"],
        help="Not used: the files are their own record, and cache.db beside them has the hits.",
    ),
]
