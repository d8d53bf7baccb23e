"""Specs: what is refused with which sentence, what is taken, and that CEL can say it too."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from imagewright.api.crd import IMAGE_BUILD, crd_of
from imagewright.api.imagebuild import ImageBuildSpec
from imagewright.api.rule import VALIDATIONS
from imagewright.api.source import INLINE_BYTES
from tests.integration.test_bad_input import REFUSED as TOLD_BY_THE_SERVER
from tests.support.makers import INLINE

DIGEST = "sha256:" + "0" * 64


def git(url: str = "https://git.example/app", **more: Any) -> dict[str, Any]:
    """A spec with this repository."""
    return {"source": {"git": {"url": url, **more}}}


def http(url: str = "https://a.example/c.tar", **more: Any) -> dict[str, Any]:
    """A spec with this download."""
    return {"source": {"http": {"url": url, **more}}}


def files(*paths: str, text: str = "x") -> dict[str, Any]:
    """A spec of these files."""
    return {"source": {"inline": {"files": dict.fromkeys(paths, text)}}}


def refused(spec: dict[str, Any]) -> str:
    """What is said of the spec; empty where it is taken."""
    try:
        ImageBuildSpec.model_validate({**INLINE, **spec})
    except ValidationError as error:
        return "\n".join(fault["msg"] for fault in error.errors())
    return ""


IMAGES = {
    "a digest": ("r.example/a@" + DIGEST, "carries a tag, not a digest"),
    "a tag and a digest": ("r.example/a:1@" + DIGEST, "carries a tag, not a digest"),
    "a second name behind a comma": ("a:1,b:1", "no comma, '=' or space"),
    "an option behind a comma": ("a:1,push=false", "no comma, '=' or space"),
    "a blank": ("a b", "no comma, '=' or space"),
    "a line's end": ("a\n", "no comma, '=' or space"),
    "upper case": ("r.example/Team/app", "written in lower case"),
    "upper case without a registry": ("App", "written in lower case"),
    "a tag that begins with a dash": ("a:-rm", "This is no image name"),
    "a tag that is too long": ("a:" + "t" * 129, "This is no image name"),
    "a leading slash": ("/a", "This is no image name"),
    "a scheme": ("https://r.example/a", "This is no image name"),
    "nothing": ("", "at least 1 character"),
}


@pytest.mark.row("S9")
@pytest.mark.row("S10")
@pytest.mark.parametrize(("name", "sentence"), IMAGES.values(), ids=IMAGES)
def test_an_image_name_that_is_none_or_hides_one_is_refused(name: str, sentence: str) -> None:
    assert sentence in refused({"images": [name]})


REVISIONS = {
    "an option": ("-x", "may not begin with '-'"),
    "a long option": ("--upload-pack=touch x", "may not begin with '-'"),
    "a range": ("main..other", "without '..'"),
    "a line's end": ("main\n", "letters, digits and ._/@+-"),
    "a null": ("ma\0in", "letters, digits and ._/@+-"),
    "a tilde": ("main~1", "letters, digits and ._/@+-"),
    "a colon, which is BuildKit's folder": ("main:sub", "letters, digits and ._/@+-"),
    "a letter that is not ASCII": ("é", "letters, digits and ._/@+-"),
    "nothing": ("", "at least 1 character"),
}


@pytest.mark.row("S3")
@pytest.mark.parametrize(("revision", "sentence"), REVISIONS.values(), ids=REVISIONS)
def test_a_revision_that_git_could_take_for_more_is_refused(revision: str, sentence: str) -> None:
    assert sentence in refused(git(revision=revision))


CREDENTIALS = {
    "a user and a password for git": git("https://me:secret@git.example/app"),
    "a token for git": git("https://ghp_token@git.example/app"),
    "an empty user": git("https://@git.example/app"),
    "a user over git's own protocol": git("git://me@git.example/app"),
    "a user and a password for a download": http("https://me:secret@a.example/c.tar"),
    "a user over plain http": http("http://me@a.example/c.tar"),
}


@pytest.mark.row("S14")
@pytest.mark.parametrize("spec", CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_url_with_credentials_is_refused_without_repeating_them(spec: dict[str, Any]) -> None:
    said = refused(spec)
    assert "A URL carries no user or password" in said
    assert "secret" not in said
    assert "ghp_token" not in said


PLACES = {
    "a folder above": ({"contextDir": ".."}, "spec.contextDir stays inside"),
    "a folder above, further in": ({"contextDir": "a/../../b"}, "spec.contextDir stays inside"),
    "an absolute folder": ({"contextDir": "/etc"}, "spec.contextDir stays inside"),
    "a Dockerfile above": ({"dockerfile": "../Dockerfile"}, "spec.dockerfile stays inside"),
    "an absolute Dockerfile": ({"dockerfile": "/etc/passwd"}, "spec.dockerfile stays inside"),
    "an absolute file": (files("/a"), "relative and plain"),
    "a file above": (files("a/../../b"), "relative and plain"),
    "a file with an empty part": (files("a//b"), "relative and plain"),
    "a file in the same folder, written so": (files("./a"), "relative and plain"),
    "a folder as a file": (files("a/"), "relative and plain"),
    "a file without a name": (files(""), "relative and plain"),
}


@pytest.mark.row("S4")
@pytest.mark.row("S6")
@pytest.mark.parametrize(("spec", "sentence"), PLACES.values(), ids=PLACES)
def test_a_path_that_leaves_the_source_is_refused(spec: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(spec)


ELSE = {
    "no kind of source": ({"source": {}}, "A build has one source"),
    "three kinds of source": (
        {"source": {**INLINE["source"], **git()["source"], **http()["source"]}},
        "A build has one source",
    ),
    "git over ssh without a key": (git("ssh://git@git.example/app"), "needs a key"),
    "git as scp writes it, without a key": (git("git@git.example:app"), "needs a key"),
    "a local repository": (git("file:///etc"), "https://, http://, git:// or ssh://"),
    "a helper of git": (git("ext::sh -c x"), "https://, http://, git:// or ssh://"),
    "an option of ssh": (git("ssh://-oProxyCommand=x/a"), "https://, http://, git:// or ssh://"),
    "an option of ssh, as scp writes it": (
        git("-oProxyCommand=x@h:a"),
        "https://, http://, git:// or ssh://",
    ),
    "a Secret with a path": (
        {"registryAuth": [{"secretRef": {"name": "../other"}}]},
        "no name of an object",
    ),
    "a Secret of another namespace": (
        {"registryAuth": [{"secretRef": {"name": "a", "namespace": "kube-system"}}]},
        "Extra inputs are not permitted",
    ),
    "an entry with a slash": (
        {"secrets": [{"id": "a", "secretRef": {"name": "a", "key": "a/b"}}]},
        "no key of an entry",
    ),
    "a mount's id with a comma": (
        {"secrets": [{"id": "a,src=/etc", "secretRef": {"name": "a", "key": "b"}}]},
        "no id of a mount",
    ),
    "a host with a blank": ({"extraHosts": [{"hostname": "a b", "ip": "::1"}]}, "no host name"),
    "a second host behind a comma": (
        {"extraHosts": [{"hostname": "a", "ip": "1.1.1.1,b=2"}]},
        "no IP address",
    ),
    "a size in words": ({"shmSize": "64 megabytes"}, "no size"),
    "a value and where to read it": (
        {
            "buildArgs": [
                {
                    "name": "A",
                    "value": "1",
                    "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}},
                }
            ]
        },
        "has one value",
    ),
    "a cache in an option": ({"cache": {"from": [{"ref": "a,ref=b"}]}}, "no image name"),
    "a registry cache without a place": (
        {"cache": {"to": [{"type": "registry"}]}},
        "under a ref of its own",
    ),
    "an inline cache with a place": (
        {"cache": {"to": [{"type": "inline", "ref": "a"}]}},
        "under a ref of its own",
    ),
    "a soft limit above the hard one": (
        {"ulimits": [{"name": "nofile", "soft": 2, "hard": 1}]},
        "at most the hard one",
    ),
    "an unlimited soft limit below a hard one": (
        {"ulimits": [{"name": "nofile", "soft": -1, "hard": 1}]},
        "at most the hard one",
    ),
    "a repository with a line's end": (
        git("https://git.example/app\n"),
        "https://, http://, git:// or ssh://",
    ),
    "an address with a line's end": (
        {"extraHosts": [{"hostname": "a", "ip": "10.0.0.7\n"}]},
        "no IP address",
    ),
    "a download over ftp": (http("ftp://a.example/c"), "https:// or http://"),
    "a download with a fragment": (http("https://a.example/c#x"), "https:// or http://"),
    "two downloads in one": (http("https://a.example/c https://b"), "https:// or http://"),
    "a digest with its name": (http(sha256=DIGEST), "64 digits in lower-case hex"),
    "a digest in upper case": (http(sha256="A" * 64), "64 digits in lower-case hex"),
    "a digest with a line's end": (http(sha256="a" * 64 + "\n"), "64 digits in lower-case hex"),
    "a label's key with '='": ({"labels": {"a=b": "c"}}, "A label's key is one word"),
    "a label without a key": ({"labels": {"": "c"}}, "A label's key is one word"),
    "an annotation's key with a blank": ({"annotations": {"a b": ""}}, "An annotation's key"),
    "a platform in upper case": ({"platforms": ["Linux/amd64"]}, "os/arch or os/arch/variant"),
    "two platforms in one": ({"platforms": ["linux/a,linux/b"]}, "os/arch or os/arch/variant"),
    "a platform of four parts": ({"platforms": ["a/b/c/d"]}, "os/arch or os/arch/variant"),
    "an argument that names a cache": (
        {"buildArgs": [{"name": "BUILDKIT_CACHE_MOUNT_NS"}]},
        "belong to the operator",
    ),
    "an argument with '='": ({"buildArgs": [{"name": "a=b"}]}, "named like a variable"),
    "an argument that is a number": ({"buildArgs": [{"name": "1a"}]}, "named like a variable"),
    "a file that is too large": (files("a", text="x" * (INLINE_BYTES + 1)), "at most 262144"),
    "an empty Dockerfile": ({"dockerfileInline": ""}, "at least 1 character"),
    "no time at all": ({"activeDeadlineSeconds": 0}, "greater than or equal to 1"),
    "fewer retries than none": ({"backoffLimit": -1}, "greater than or equal to 0"),
    "more retries than ten": ({"backoffLimit": 11}, "less than or equal to 10"),
    "a time before the end": ({"ttlSecondsAfterFinished": -1}, "greater than or equal to 0"),
    "a privileged step": ({"network": "bridge"}, "Input should be 'default', 'none' or 'host'"),
    "an unknown field": ({"privileged": True}, "Extra inputs are not permitted"),
}


@pytest.mark.row("S11")
@pytest.mark.row("S12")
@pytest.mark.parametrize(("spec", "sentence"), ELSE.values(), ids=ELSE)
def test_anything_else_that_cannot_be_meant_is_refused(
    spec: dict[str, Any], sentence: str
) -> None:
    assert sentence in refused(spec)


TAKEN = {
    "a registry with a port": {"images": ["localhost:5000/a/b:V1.2_x"]},
    "an IPv6 registry": {"images": ["[::1]:5000/a"]},
    "a name of Docker Hub": {"images": ["app", "team/app"]},
    "a branch with slashes": git(revision="feature/x.y_z-1+2"),
    "a long commit": git(revision="0123456789" * 4),
    "git's own protocol": git("git://git.example:9418/a.git"),
    "an at sign behind the host": git("https://git.example/@scope/app"),
    "a signed download": http("https://a.example/c.tar?sig=x%20y"),
    "a digest": http(sha256="0af" * 21 + "0"),
    "a folder with dots in its name": {"contextDir": "a..b/...c"},
    "a Dockerfile of another name": {"dockerfile": "docker/Dockerfile.prod"},
    "a Dockerfile in the spec": {"dockerfileInline": "FROM scratch\n"},
    "files that are just not too large": files("a", "b", text="x" * (INLINE_BYTES // 2)),
    "a hidden file": files(".dockerignore", "a/.b/..c"),
    "a label of the specification": {"labels": {"org.opencontainers.image.title": "x y\n=z"}},
    "an argument without a value": {"buildArgs": [{"name": "_a1"}]},
    "a variant of an architecture": {"platforms": ["linux/arm/v7", "linux/386"]},
    "git over ssh": git("ssh://git@git.example:2222/app.git", secretRef={"name": "key"}),
    "git as scp writes it": git("git@git.example:team/app.git", secretRef={"name": "key"}),
    "an image as the source": {"source": {"oci": {"image": f"r.example/a:1@{DIGEST}"}}},
    "a ConfigMap as the source": {"source": {"configMap": {"name": "files.v1"}}},
    "a size in bytes": {"shmSize": "67108864"},
    "a limit that is none": {"ulimits": [{"name": "core", "soft": 0, "hard": -1}]},
    "the host itself as a host": {"extraHosts": [{"hostname": "h", "ip": "host-gateway"}]},
    "deleted at once": {"ttlSecondsAfterFinished": 0},
}


@pytest.mark.parametrize("spec", TAKEN.values(), ids=TAKEN)
def test_what_people_really_write_is_taken(spec: dict[str, Any]) -> None:
    assert refused(spec) == ""


def rules(node: Any) -> list[dict[str, str]]:
    """Every CEL rule in the schema."""
    if isinstance(node, list):
        return [rule for item in node for rule in rules(item)]
    if not isinstance(node, dict):
        return []
    inner = [rule for key, value in node.items() if key != VALIDATIONS for rule in rules(value)]
    own: list[dict[str, str]] = node.get(VALIDATIONS, [])
    return [*own, *inner]


RULES = rules(crd_of(IMAGE_BUILD))


def test_every_rule_of_the_schema_is_met_by_some_refusal() -> None:
    met = [refused(spec) for spec, _ in [*TOLD_BY_THE_SERVER.values(), *PLACES.values()]]
    met += [refused({"images": [name]}) for name, _ in IMAGES.values()]
    met += [refused(git(revision=revision)) for revision, _ in REVISIONS.values()]
    met += [refused(spec) for spec, _ in ELSE.values()]
    said = "\n".join(met)
    assert [rule["message"] for rule in RULES if rule["message"] not in said] == []
    assert len(RULES) > 15


@pytest.mark.parametrize("rule", {rule["rule"]: rule for rule in RULES}.values(), ids=str)
def test_a_rule_is_one_that_the_api_server_can_judge(rule: dict[str, str]) -> None:
    # RE2, and so CEL, has no lookaround and no backreference; both would be refused with the CRD.
    assert not re.search(r"\(\?[=!<]|\\\\[1-9]|\\\\Z", rule["rule"])
    assert "self" in rule["rule"]
    assert "\n" not in rule["message"]
    assert rule["message"].endswith(".")
