"""What an error of obstore means: one line, without the error's own text, which may hold parts of credentials."""

from __future__ import annotations

import re

from visionadapt.errors import ImageError, SourceError

MISSING = "no such object"
CHANGED = "has changed since it was listed"

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_NO_CREDENTIALS = re.compile(
    r"metadata\.google\.internal|169\.254\.169\.254|169\.254\.170\.2|Account must be specified|No credentials"
)
"""What an error names if the chain of credentials has come to its end."""
_REGION = "incorrectly configured region"
"""What obstore says of a redirect to nowhere."""
_OF_BUCKET = (
    ({"NoSuchBucket", "ContainerNotFound"}, "there is no such bucket; correct its name, or the endpoint or account"),
    (
        {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"},
        "the credentials have expired; renew them, and repeat the command",
    ),
    (
        {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthenticationFailed", "401"},
        "the credentials are not accepted; renew them, and repeat the command",
    ),
    ({"RequestTimeTooSkewed"}, "this machine's clock is wrong; correct it"),
    (
        {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"},
        "the bucket is in another region; set AWS_REGION to it",
    ),
)
"""Codes of the providers, or HTTP statuses, after which no other object of the bucket will come either."""


def failure_of(error: Exception, bucket: str, name: str) -> SourceError | ImageError:
    """Return what to raise for an error of obstore: a SourceError about the bucket, or an ImageError about `name`."""
    text = str(error)
    code, status = _CODE.search(text), _STATUS.search(text)
    told = code[1] if code else status[1] if status else ""
    for codes, reason in _OF_BUCKET:
        if told in codes or (_REGION in text and "301" in codes):
            return SourceError(f"{bucket}: {reason}")
    if _NO_CREDENTIALS.search(text):
        return SourceError(f"{bucket}: no credentials were found; {_advice(bucket)}")
    if type(error).__name__ == "InvalidPathError":
        return SourceError(f"{bucket}: an object's name has empty parts or '..', which cannot be read; rename it")
    if isinstance(error, ValueError):
        return SourceError(f"{bucket}: cannot be opened; check its name, and the store's environment variables")
    if isinstance(error, FileNotFoundError):
        return ImageError(name, MISSING)
    if type(error).__name__ == "PreconditionError":
        return ImageError(name, CHANGED, lasting=False)
    what = "access is denied" if told in {"AccessDenied", "403"} else "does not come from the store"
    return ImageError(name, f"{what}{f' ({told})' if told else ''}", lasting=False)


def _advice(bucket: str) -> str:
    if bucket.startswith("s3:"):
        return (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with boto3 installed, or "
            "AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    if bucket.startswith("gs:"):
        return "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket"
    return "set AZURE_STORAGE_ACCOUNT_NAME and a key, or log in by az login and set AZURE_USE_AZURE_CLI=true"
