"""CEL as Kubernetes speaks it: each line is an expression that holds."""

from __future__ import annotations

import pytest

from berg.apiserver.cel import CompileError, EvaluationError, compile_expression

SELF = {
    "d": 1.5,
    "i": 2,
    "s": "abc",
    "l": [{"k": "a", "v": 1}, {"k": "b", "v": 2}],
    "m": {"x": 1, "y": 2},
    "namespace": "n",
    "a-b": 3,
}

HOLD = """
self.d > 1 && self.i == 2.0
!has(self.q) && has(self.s)
self.?q.?r.orValue(7) == 7
self.?m.x.value() == 1 || true
self.l[?5].hasValue() == false
self.__namespace__ == 'n' && self.a__dash__b == 3
cel.bind(x, self.i + 1, x * x) == 9
self.l.all(i, e, e.v == i + 1)
self.m.exists(k, v, k == 'y' && v == 2)
self.l.existsOne(i, e, e.k == 'a')
self.m.transformList(k, v, v).sum() == 3
self.m.transformMap(k, v, v > 1, v * 10) == {'y': 20}
self.l.map(x, x.k) == ['a', 'b']
quantity('1Gi').isGreaterThan(quantity('1000Mi')) && !isQuantity('1x')
quantity('500m').add(quantity('500m')).compareTo(quantity('1')) == 0
url('https://a.b:8/c?d=e').getHost() == 'a.b:8' && url('https://a.b:8/c?d=e').getEscapedPath() == '/c'
ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && !isIP('x')
cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))
'abc123'.find('[0-9]+') == '123' && [1, 2, 3].isSorted() && [1, 2].indexOf(2) == 1
!format.dns1123Label().validate('a-b').hasValue() && format.dns1123Label().validate('A').hasValue()
semver('1.2.3').isLessThan(semver('1.10.0'))
'%s has %d'.format(['x', 2]) == 'x has 2'
'a(b, c)'.split(', ') == ['a(b', 'c)']
""".strip().splitlines()


@pytest.mark.parametrize("text", HOLD)
def test_holds(text: str) -> None:
    assert compile_expression(text).evaluate({"self": SELF}) is True


def test_faults() -> None:
    with pytest.raises(CompileError):
        compile_expression("self.")
    with pytest.raises(EvaluationError, match="no such key: nope"):
        compile_expression("self.nope == 1").evaluate({"self": SELF})
    assert compile_expression("self.i == oldSelf.i").variables == {"self", "oldSelf"}
