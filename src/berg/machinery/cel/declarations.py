# ruff: noqa: E501 (a function's signatures stand in one line)
"""Every function of Kubernetes' CEL with its signatures: one table, which the checker and the price list read.

A line is a function and its overloads. `string.(string) -> bool` is a method of strings.

Source: cel-go common/stdlib, ext/{strings,sets,lists,comprehensions}, cel/library.go (optionals);
k8s.io/apiserver pkg/cel/library; which versions of them: pkg/cel/environment/base.go.
"""

from __future__ import annotations

from functools import cache

from berg.machinery.cel.types import ANY_TYPE, Overload, Type, overload, read, type_of

_TABLE = """
_?_:_  (bool,A,A) -> A
_&&_  (bool,bool) -> bool
_||_  (bool,bool) -> bool
!_  (bool) -> bool
@not_strictly_false  (bool) -> bool
_==_  (A,A) -> bool
_!=_  (A,A) -> bool
_+_  (bytes,bytes) -> bytes; (double,double) -> double; (duration,duration) -> duration; (duration,timestamp) -> timestamp; (timestamp,duration) -> timestamp; (int,int) -> int; (list(A),list(A)) -> list(A); (string,string) -> string; (uint,uint) -> uint
_-_  (double,double) -> double; (duration,duration) -> duration; (int,int) -> int; (timestamp,duration) -> timestamp; (timestamp,timestamp) -> duration; (uint,uint) -> uint
_*_  (double,double) -> double; (int,int) -> int; (uint,uint) -> uint
_/_  (double,double) -> double; (int,int) -> int; (uint,uint) -> uint
_%_  (int,int) -> int; (uint,uint) -> uint
-_  (double) -> double; (int) -> int
_[_]  (list(A),int) -> A; (map(A,B),A) -> B; (optional(list(A)),int) -> optional(A); (optional(map(A,B)),A) -> optional(B)
_[?_]  (list(A),int) -> optional(A); (optional(list(A)),int) -> optional(A); (map(A,B),A) -> optional(B); (optional(map(A,B)),A) -> optional(B)
@in  (A,list(A)) -> bool; (A,map(A,B)) -> bool
size  (bytes) -> int; bytes.() -> int; (list(A)) -> int; list(A).() -> int; (map(A,B)) -> int; map(A,B).() -> int; (string) -> int; string.() -> int
type  (A) -> type(A)
dyn  (A) -> dyn
bool  (bool) -> bool; (string) -> bool
bytes  (bytes) -> bytes; (string) -> bytes
double  (double) -> double; (int) -> double; (string) -> double; (uint) -> double
duration  (duration) -> duration; (int) -> duration; (string) -> duration
int  (int) -> int; (double) -> int; (duration) -> int; (string) -> int; (timestamp) -> int; (uint) -> int
string  (string) -> string; (bool) -> string; (bytes) -> string; (double) -> string; (duration) -> string; (int) -> string; (timestamp) -> string; (uint) -> string; (net.IP) -> string; (net.CIDR) -> string
timestamp  (timestamp) -> timestamp; (int) -> timestamp; (string) -> timestamp
uint  (uint) -> uint; (double) -> uint; (int) -> uint; (string) -> uint
contains  string.(string) -> bool
endsWith  string.(string) -> bool
startsWith  string.(string) -> bool
matches  (string,string) -> bool; string.(string) -> bool
getFullYear  timestamp.() -> int; timestamp.(string) -> int
getMonth  timestamp.() -> int; timestamp.(string) -> int
getDayOfYear  timestamp.() -> int; timestamp.(string) -> int
getDayOfMonth  timestamp.() -> int; timestamp.(string) -> int
getDate  timestamp.() -> int; timestamp.(string) -> int
getDayOfWeek  timestamp.() -> int; timestamp.(string) -> int
getHours  timestamp.() -> int; timestamp.(string) -> int; duration.() -> int
getMinutes  timestamp.() -> int; timestamp.(string) -> int; duration.() -> int
getSeconds  timestamp.() -> int; timestamp.(string) -> int; duration.() -> int
getMilliseconds  timestamp.() -> int; timestamp.(string) -> int; duration.() -> int

optional.of  (A) -> optional(A)
optional.ofNonZeroValue  (A) -> optional(A)
optional.none  () -> optional(A)
optional.unwrap  (list(optional(A))) -> list(A)
unwrapOpt  list(optional(A)).() -> list(A)
value  optional(A).() -> A
hasValue  optional(A).() -> bool
or  optional(A).(optional(A)) -> optional(A)
orValue  optional(A).(A) -> A
first  list(A).() -> optional(A)
last  list(A).() -> optional(A)

charAt  string.(int) -> string
indexOf  string.(string) -> int; string.(string,int) -> int; list(A).(A) -> int
lastIndexOf  string.(string) -> int; string.(string,int) -> int; list(A).(A) -> int
join  list(string).() -> string; list(string).(string) -> string
lowerAscii  string.() -> string
upperAscii  string.() -> string
replace  string.(string,string) -> string; string.(string,string,int) -> string
split  string.(string) -> list(string); string.(string,int) -> list(string)
substring  string.(int) -> string; string.(int,int) -> string
trim  string.() -> string
format  string.(list(dyn)) -> string
strings.quote  (string) -> string

sets.contains  (list(A),list(A)) -> bool
sets.equivalent  (list(A),list(A)) -> bool
sets.intersects  (list(A),list(A)) -> bool
slice  list(A).(int,int) -> list(A)
flatten  list(list(A)).() -> list(A); list(dyn).(int) -> list(dyn)
lists.range  (int) -> list(int)
reverse  list(A).() -> list(A)
distinct  list(A).() -> list(A)
sort  @comparable list(T).() -> list(T)
@sortByAssociatedKeys  @comparable list(A).(list(T)) -> list(A)
isSorted  @comparable list(T).() -> bool
sum  @summable list(T).() -> T
min  @comparable list(T).() -> T
max  @comparable list(T).() -> T
cel.@mapInsert  (map(A,B),A,B) -> map(A,B); (map(A,B),map(A,B)) -> map(A,B)

find  string.(string) -> string
findAll  string.(string) -> list(string); string.(string,int) -> list(string)
url  (string) -> kubernetes.URL
isURL  (string) -> bool
getScheme  kubernetes.URL.() -> string
getHost  kubernetes.URL.() -> string
getHostname  kubernetes.URL.() -> string
getPort  kubernetes.URL.() -> string
getEscapedPath  kubernetes.URL.() -> string
getQuery  kubernetes.URL.() -> map(string,list(string))
ip  (string) -> net.IP; net.CIDR.() -> net.IP
isIP  (string) -> bool
ip.isCanonical  (string) -> bool
family  net.IP.() -> int
isUnspecified  net.IP.() -> bool
isLoopback  net.IP.() -> bool
isLinkLocalMulticast  net.IP.() -> bool
isLinkLocalUnicast  net.IP.() -> bool
isGlobalUnicast  net.IP.() -> bool
cidr  (string) -> net.CIDR
isCIDR  (string) -> bool
containsIP  net.CIDR.(string) -> bool; net.CIDR.(net.IP) -> bool
containsCIDR  net.CIDR.(string) -> bool; net.CIDR.(net.CIDR) -> bool
prefixLength  net.CIDR.() -> int
masked  net.CIDR.() -> net.CIDR
quantity  (string) -> kubernetes.Quantity
isQuantity  (string) -> bool
sign  (kubernetes.Quantity) -> int
isGreaterThan  kubernetes.Quantity.(kubernetes.Quantity) -> bool; kubernetes.Semver.(kubernetes.Semver) -> bool
isLessThan  kubernetes.Quantity.(kubernetes.Quantity) -> bool; kubernetes.Semver.(kubernetes.Semver) -> bool
compareTo  kubernetes.Quantity.(kubernetes.Quantity) -> int; kubernetes.Semver.(kubernetes.Semver) -> int
asApproximateFloat  kubernetes.Quantity.() -> double
asInteger  kubernetes.Quantity.() -> int
isInteger  kubernetes.Quantity.() -> bool
add  kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity; kubernetes.Quantity.(int) -> kubernetes.Quantity
sub  kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity; kubernetes.Quantity.(int) -> kubernetes.Quantity
semver  (string) -> kubernetes.Semver; (string,bool) -> kubernetes.Semver
isSemver  (string) -> bool; (string,bool) -> bool
major  kubernetes.Semver.() -> int
minor  kubernetes.Semver.() -> int
patch  kubernetes.Semver.() -> int
validate  kubernetes.NamedFormat.(string) -> optional(list(string))
format.named  (string) -> optional(kubernetes.NamedFormat)
format.dns1123Label  () -> kubernetes.NamedFormat
format.dns1123Subdomain  () -> kubernetes.NamedFormat
format.dns1035Label  () -> kubernetes.NamedFormat
format.qualifiedName  () -> kubernetes.NamedFormat
format.dns1123LabelPrefix  () -> kubernetes.NamedFormat
format.dns1123SubdomainPrefix  () -> kubernetes.NamedFormat
format.dns1035LabelPrefix  () -> kubernetes.NamedFormat
format.labelValue  () -> kubernetes.NamedFormat
format.uri  () -> kubernetes.NamedFormat
format.uuid  () -> kubernetes.NamedFormat
format.byte  () -> kubernetes.NamedFormat
format.date  () -> kubernetes.NamedFormat
format.datetime  () -> kubernetes.NamedFormat

path  kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck
group  kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck
serviceAccount  kubernetes.authorization.Authorizer.(string,string) -> kubernetes.authorization.Authorizer
resource  kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck
subresource  kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
namespace  kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
name  kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
fieldSelector  kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
labelSelector  kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck
check  kubernetes.authorization.PathCheck.(string) -> kubernetes.authorization.Decision; kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.Decision
errored  kubernetes.authorization.Decision.() -> bool
error  kubernetes.authorization.Decision.() -> string
allowed  kubernetes.authorization.Decision.() -> bool
reason  kubernetes.authorization.Decision.() -> string
jsonpatch.escapeKey  (string) -> string
"""

_NUMERIC = ("int", "uint", "double")
_FAMILIES = {
    "@comparable": (*_NUMERIC, "bool", "duration", "timestamp", "string", "bytes"),
    "@summable": (*_NUMERIC, "duration"),
}
_COMPARED = ("bool", "string", "bytes", "timestamp", "duration")
ONLY_MUTATING = frozenset(("jsonpatch.escapeKey",))

_IDENTIFIERS = """
bool bytes double duration dyn int list(dyn) map(dyn,dyn) null string timestamp type uint optional_type(dyn) net.IP
net.CIDR kubernetes.URL kubernetes.Quantity kubernetes.Semver kubernetes.NamedFormat
kubernetes.authorization.Authorizer kubernetes.authorization.PathCheck kubernetes.authorization.GroupCheck
kubernetes.authorization.ResourceCheck kubernetes.authorization.Decision
"""


@cache
def functions() -> dict[str, tuple[Overload, ...]]:
    found: dict[str, tuple[Overload, ...]] = {}
    for line in _TABLE.strip().splitlines():
        if not line:
            continue
        name, _, signatures = line.partition("  ")
        found[name] = tuple(o for text in signatures.split("; ") for o in _of(text.strip()))
    for sign in ("<", "<=", ">", ">="):
        pairs = [(a, b) for a in _NUMERIC for b in _NUMERIC] + [(t, t) for t in _COMPARED]
        found[f"_{sign}_"] = tuple(overload(f"({a},{b}) -> bool") for a, b in pairs)
    return found


def _of(text: str) -> list[Overload]:
    family, _, rest = text.partition(" ")
    if family not in _FAMILIES:
        return [overload(text)]
    return [overload(rest.replace("(T)", f"({t})").replace("-> T", f"-> {t}")) for t in _FAMILIES[family]]


@cache
def type_names() -> dict[str, Type]:
    """Names of types, which are values too: `type(x) == string`."""
    found = {}
    for text in _IDENTIFIERS.split():
        t = read(text)
        name = {"null": "null_type", "duration": "google.protobuf.Duration", "timestamp": "google.protobuf.Timestamp"}
        found[name.get(t.name, t.name)] = t if t is ANY_TYPE else type_of(t)
    found["type"] = type_of(ANY_TYPE)
    return found
