"""The settings of a store of type s3, in the group of its id; names and defaults are Glance's."""

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "s3_store_host",
        help="The S3 service: HOST, HOST:PORT or a URL of these; by http unless it says https.",
    ),
    cfg.StrOpt(
        "s3_store_region_name",
        default="",
        help="Its region; when unset that of an address of Amazon's, else us-east-1.",
    ),
    cfg.StrOpt("s3_store_access_key", secret=True, help="The access key."),
    cfg.StrOpt("s3_store_secret_key", secret=True, help="The secret key that goes with it."),
    cfg.StrOpt("s3_store_bucket", help="The bucket that holds the images, one object each."),
    cfg.BoolOpt(
        "s3_store_create_bucket_on_put",
        default=False,
        help="Make the bucket if an upload finds that there is none.",
    ),
    cfg.StrOpt(
        "s3_store_bucket_url_format",
        default="auto",
        choices=["auto", "virtual", "path"],
        help="Where the bucket is said: in the name of the host ('virtual') or in the path. "
        "'auto': as Amazon wants it there, in the path elsewhere.",
    ),
    cfg.IntOpt(
        "s3_store_large_object_size",
        default=100,
        min=0,
        help="MiB from which on an image is uploaded in parts, several at a time; one of unknown "
        "size always is.",
    ),
    cfg.IntOpt(
        "s3_store_large_object_chunk_size",
        default=10,
        min=5,
        help="MiB of a part; more where 10,000 of them would not be enough.",
    ),
    cfg.IntOpt(
        "s3_store_thread_pools",
        default=10,
        min=1,
        help="Parts of an upload that go at a time. As many, and two more, may lie in the staging "
        "directory.",
    ),
    cfg.StrOpt(
        "s3_store_cacert",
        default="",
        help="Certificate authorities that the service is verified by; the system's when unset.",
    ),
]

REQUIRED = ("s3_store_host", "s3_store_access_key", "s3_store_secret_key", "s3_store_bucket")
