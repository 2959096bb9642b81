"""Service-account tokens: signed here, and checked against the objects that they are bound to.

A token is a JWT that names the service account (and the pod, secret or node it is bound to) with UIDs; it is good
as long as the signature and the times hold *and* all that it names still exists. The signature is checked once;
the objects are looked up each time.

Source: kubernetes pkg/serviceaccount (claims.go, jwt.go, legacy.go).
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from berg.apiserver.auth.authentication import AUTHENTICATED, CREDENTIAL_ID, Unauthorized
from berg.apiserver.auth.figures import CacheFigures
from berg.apiserver.http.message import User
from berg.machinery.clock import Clock, parse_rfc3339
from berg.machinery.status import Obj

LEGACY_ISSUER = "kubernetes/serviceaccount"
_LEGACY = "kubernetes.io/serviceaccount/"
WARN_AFTER_S = 3607
EXTENSION_S = 365 * 24 * 3600
LEEWAY_S = 60
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"

Notes = tuple[tuple[str, str], ...]
Lookup = Callable[[str, str, str], Obj | None]
"""(plural, namespace, name) → the object as it is now"""


@dataclass(slots=True)
class _Key:
    id: str
    algorithm: str
    public: Any


def _load_public(path: str) -> list[Any]:
    from cryptography.hazmat.primitives import serialization

    pem = Path(path).read_bytes()
    keys = []
    for block in pem.split(b"-----END")[:-1]:
        begin = block.index(b"-----BEGIN")
        label = block[begin:].split(b"-----")[1].removeprefix(b"BEGIN ")
        whole = block[begin:] + b"-----END " + label + b"-----\n"
        if b"PRIVATE" in label:
            keys.append(serialization.load_pem_private_key(whole, None).public_key())
        elif b"PUBLIC" in label:
            keys.append(serialization.load_pem_public_key(whole))
    return keys


def key_id(public: Any) -> str:
    """URL-safe base64 of the SHA-256 of the key in PKIX form, as upstream names its keys."""
    from cryptography.hazmat.primitives import serialization

    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def _algorithm(public: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec

    if isinstance(public, ec.EllipticCurvePublicKey):
        return {256: "ES256", 384: "ES384", 521: "ES512"}[public.curve.key_size]
    return "RS256"


class ServiceAccountTokens:
    """Signs with the one private key, verifies with every public one."""

    def __init__(
        self,
        *,
        signing_key_file: str,
        key_files: Sequence[str],
        issuers: Sequence[str],
        audiences: Sequence[str],
        lookup: Lookup,
        clock: Clock,
        check_objects: bool = True,
        extend: bool = True,
    ) -> None:
        from cryptography.hazmat.primitives import serialization

        self.issuers = list(issuers)
        self.audiences = list(audiences) or list(issuers)
        self.keys: list[_Key] = []
        self._lookup = lookup
        self._clock = clock
        self._check_objects = check_objects
        self._extend = extend
        self.used: Callable[[Obj], None] = lambda secret: None
        """called with the Secret of a token that was used, to note the day"""
        self._private: Any = None
        publics: list[Any] = []
        if signing_key_file:
            pem = Path(signing_key_file).read_bytes()
            # Whether an RSA key's numbers are primes is worked out for a tenth of a second otherwise; it is our own.
            self._private = serialization.load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
        elif not key_files:
            from berg.machinery import pki

            self._private = pki.new_key()  # a server in memory: its tokens die with it
        if self._private is not None:
            publics.append(self._private.public_key())
        for path in key_files:
            publics += _load_public(path)
        for public in publics:
            key = _Key(key_id(public), _algorithm(public), public)
            if all(k.id != key.id for k in self.keys):
                self.keys.append(key)
        self._verified: dict[str, Obj] = {}
        self.cache = CacheFigures()
        self.counts: Counter[str] = Counter()
        """of tokens, by what is told of them"""

    # ---- signing

    def sign(self, claims: Obj) -> str:
        import jwt

        key = self.keys[0]
        return jwt.encode(claims, self._private, algorithm=key.algorithm, headers={"kid": key.id, "typ": None})

    def issue(
        self,
        service_account: Obj,
        *,
        audiences: Sequence[str],
        expiration_s: int,
        bound: tuple[str, Obj] | None = None,
        node: Obj | None = None,
    ) -> tuple[str, int, str]:
        """(token, when it expires in seconds since 1970, its id). `bound` is ("pod" | "secret" | "node", object)."""
        meta = service_account["metadata"]
        now = int(self._clock.now().timestamp())
        private: Obj = {
            "namespace": meta["namespace"],
            "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
        }
        if bound is not None:
            kind, obj = bound
            private[kind] = {"name": obj["metadata"]["name"], "uid": obj["metadata"]["uid"]}
        if node is not None:
            private["node"] = {k: v for k, v in node.items() if v}
        expires = now + expiration_s
        if self._extend and bound is not None and bound[0] == "pod" and expiration_s == WARN_AFTER_S:
            private["warnafter"] = expires
            expires = now + EXTENSION_S
        jti = str(uuid.uuid4())
        claims = {
            "aud": list(audiences) or self.audiences,
            "exp": expires,
            "iat": now,
            "iss": self.issuers[0],
            "jti": jti,
            "kubernetes.io": private,
            "nbf": now,
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
        }
        return self.sign(claims), now + expiration_s, jti

    # ---- verifying

    def authenticate_token(self, token: str, audiences: Sequence[str]) -> tuple[User, list[str]] | None:
        claims = self._verified.get(token)
        if claims is not None:
            self.cache.hits += 1
        else:
            started = perf_counter()
            try:
                claims = self._verify(token)
            except Unauthorized:
                self.cache.missed(started, ok=False)
                raise
            if claims is None:
                return None
            self.cache.missed(started, ok=True)
            if len(self._verified) > 10_000:
                self._verified.clear()
            self._verified[token] = claims
        good = self._good_audiences(claims, audiences)
        if claims["iss"] == LEGACY_ISSUER:
            user = self._legacy_user(claims, token)
            self.counts["legacy_tokens"] += 1
            return user, good
        now = self._clock.now().timestamp()
        if "exp" in claims and now - LEEWAY_S > claims["exp"]:
            raise Unauthorized("service account token has expired")
        if now + LEEWAY_S < claims.get("nbf", 0):
            raise Unauthorized("service account token is not valid yet")
        if now + LEEWAY_S < claims.get("iat", 0):
            raise Unauthorized("service account token is issued in the future")
        return self._user(claims), good

    def _good_audiences(self, claims: Obj, audiences: Sequence[str]) -> list[str]:
        """Raises Unauthorized when the token is good for none of them."""
        wanted = list(audiences) or self.audiences
        given = claims.get("aud")
        if claims["iss"] == LEGACY_ISSUER or not given:
            given = self.audiences
        if isinstance(given, str):
            given = [given]
        good = [a for a in wanted if a in given]
        if not good:
            told = f"token audiences {_quoted(given)} is invalid for the target audiences {_quoted(wanted)}"
            raise Unauthorized(told)
        return good

    def _verify(self, token: str) -> Obj | None:
        """None when the token is not one of ours."""
        import jwt

        if token.count(".") != 2:
            return None
        try:
            header = jwt.get_unverified_header(token)
            claims: Obj = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return None
        if claims.get("iss") not in (*self.issuers, LEGACY_ISSUER):
            return None
        kid = header.get("kid")
        keys = [k for k in self.keys if k.id == kid] if kid else self.keys
        if not keys:
            raise Unauthorized("invalid signature, no keys found")
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key.public,
                    algorithms=[key.algorithm],
                    options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
                )
            except jwt.InvalidTokenError:
                continue
        raise Unauthorized("go-jose/go-jose: error in cryptographic primitive")

    def _user(self, claims: Obj) -> User:
        private = claims.get("kubernetes.io") or {}
        account = private.get("serviceaccount") or {}
        namespace, name, uid = private.get("namespace", ""), account.get("name", ""), account.get("uid", "")
        if claims.get("sub") != f"system:serviceaccount:{namespace}:{name}":
            raise Unauthorized("sub claim is invalid")
        extra: dict[str, list[str]] = {}
        if claims.get("jti"):
            extra[CREDENTIAL_ID] = [f"JTI={claims['jti']}"]
        if self._check_objects:
            self._account_must_exist(namespace, name, uid)
        for kind, plural in (("secret", "secrets"), ("pod", "pods"), ("node", "nodes")):
            ref = private.get(kind)
            if not ref:
                continue
            if self._check_objects and not (kind == "node" and "pod" in private):
                self._bound_must_exist(kind, plural, "" if kind == "node" else namespace, ref)
            if kind != "secret":
                extra[f"authentication.kubernetes.io/{kind}-name"] = [ref.get("name", "")]
                if ref.get("uid"):
                    extra[f"authentication.kubernetes.io/{kind}-uid"] = [ref["uid"]]
        return _account(namespace, name, uid, extra, self._notes(claims, private))

    def _notes(self, claims: Obj, private: Obj) -> Notes:
        """A token that lives on only because it was extended: who uses it does not read it again from its file."""
        now, warn_after = int(self._clock.now().timestamp()), private.get("warnafter") or 0
        if not warn_after:
            return ()
        if now <= warn_after:
            self.counts["valid_tokens"] += 1
            return ()
        self.counts["stale_tokens"] += 1
        told = f"subject: {claims['sub']}, seconds after warning threshold: {now - int(warn_after)}"
        return (("authentication.k8s.io/stale-token", told),)

    def _account_must_exist(self, namespace: str, name: str, uid: str) -> None:
        account = self._lookup("serviceaccounts", namespace, name)
        if account is None:
            raise Unauthorized(f'serviceaccounts "{name}" not found')
        if account["metadata"].get("uid") != uid:
            raise Unauthorized(f"service account UID ({account['metadata'].get('uid')}) does not match claim ({uid})")
        if self._is_gone(account):
            raise Unauthorized(f"service account {namespace}/{name} has been deleted")

    def _bound_must_exist(self, kind: str, plural: str, namespace: str, ref: Obj) -> None:
        found = self._lookup(plural, namespace, ref.get("name", ""))
        if found is not None and found["metadata"].get("uid") != ref.get("uid"):
            what = "service account secret" if kind == "secret" else f"service account {kind}"
            told = f"{kind} UID ({found['metadata'].get('uid')}) does not match {what} ref claim ({ref.get('uid')})"
            raise Unauthorized(told)
        if found is None or self._is_gone(found):
            raise Unauthorized("service account token has been invalidated")

    def _is_gone(self, obj: Obj) -> bool:
        """Deleted for longer than the clocks of two machines may differ."""
        deleted = obj["metadata"].get("deletionTimestamp")
        return bool(deleted) and self._clock.now().timestamp() > parse_rfc3339(deleted).timestamp() + LEEWAY_S

    def _legacy_user(self, claims: Obj, token: str) -> User:
        """Of a token that lies in a Secret: it is good as long as the Secret has it."""
        said = {}
        for claim, field in (
            ("namespace", "namespace"),
            ("secretName", "secret.name"),
            ("serviceAccountName", "service-account.name"),
            ("serviceAccountUID", "service-account.uid"),
        ):
            said[claim] = claims.get(_LEGACY + field) or ""
        for claim, value in (("sub", claims.get("sub")), *said.items()):
            if not value:
                raise Unauthorized(f"{claim} claim is missing")
        namespace, name, uid = said["namespace"], said["serviceAccountName"], said["serviceAccountUID"]
        if claims["sub"] != f"system:serviceaccount:{namespace}:{name}":
            raise Unauthorized("sub claim is invalid")
        notes: Notes = ()
        if self._check_objects:
            account = self._legacy_must_hold(namespace, name, uid, said["secretName"], token)
            listed = any(ref.get("name") == said["secretName"] for ref in account.get("secrets") or ())
            kind = "autogenerated" if listed else "manual"
            self.counts["legacy_auto_token_uses" if listed else "legacy_manual_token_uses"] += 1
            notes = ((f"authentication.k8s.io/legacy-token-{kind}-secret", said["secretName"]),)
        return _account(namespace, name, uid, {}, notes)

    def _legacy_must_hold(self, namespace: str, name: str, uid: str, secret_name: str, token: str) -> Obj:
        """The service account. Raises Unauthorized."""
        import hmac

        secret = self._lookup("secrets", namespace, secret_name)
        if secret is None or secret["metadata"].get("deletionTimestamp"):
            raise Unauthorized("Token has been invalidated")
        kept = base64.b64decode((secret.get("data") or {}).get("token") or "")
        if not hmac.compare_digest(kept, token.encode()):
            raise Unauthorized("Token does not match server's copy")
        account = self._lookup("serviceaccounts", namespace, name)
        if account is None:
            raise Unauthorized(f'serviceaccounts "{name}" not found')
        meta = account["metadata"]
        if meta.get("deletionTimestamp"):
            raise Unauthorized(f"ServiceAccount {namespace}/{name} has been deleted")
        if meta.get("uid") != uid:
            raise Unauthorized(f"ServiceAccount UID ({meta.get('uid')}) does not match claim ({uid})")
        self.used(secret)
        if (secret["metadata"].get("labels") or {}).get(INVALID_SINCE):
            self.counts["invalid_legacy_auto_token_uses"] += 1
            raise Unauthorized(
                f"the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked "
                "invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the "
                f"'{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            )
        return account

    # ---- publishing

    def jwks(self) -> Obj:
        import json

        from jwt.algorithms import ECAlgorithm, RSAAlgorithm

        keys = []
        for key in self.keys:
            maker = RSAAlgorithm if key.algorithm.startswith("RS") else ECAlgorithm
            jwk = json.loads(maker.to_jwk(key.public))
            jwk.pop("key_ops", None)
            keys.append({"use": "sig", "kid": key.id, "alg": key.algorithm, **jwk})
        return {"keys": keys}


def _quoted(values: Sequence[str]) -> str:
    return "[" + " ".join(f'"{v}"' for v in values) + "]"


def _account(namespace: str, name: str, uid: str, extra: dict[str, list[str]], notes: Notes = ()) -> User:
    return User(
        f"system:serviceaccount:{namespace}:{name}",
        uid,
        ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED),
        extra,
        notes,
    )
