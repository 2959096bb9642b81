"""CEL as Kubernetes speaks it: parsed, checked against types, priced, evaluated.

    text ─parse─► tree ─check─► types, overloads ─┬─ estimate ─► what it may cost
                                                  └─ evaluate ─► closures, which count what they cost

    env = Environment({"self": shape.type})
    rule = env.compile("self.replicas <= 5")     # raises CompileError, in cel-go's words
    rule.evaluate({"self": obj})                 # raises EvaluationError

This is our own because Kubernetes' CEL is more than the language: definitions are refused by types and by estimated
cost, and requests are bounded by counted cost, which needs the tree; no library for Python gives it away.
"""

from berg.machinery.cel.environment import CompileError, Environment, Expression
from berg.machinery.cel.values import CostExceeded, EvaluationError

__all__ = ["CompileError", "CostExceeded", "Environment", "EvaluationError", "Expression"]
