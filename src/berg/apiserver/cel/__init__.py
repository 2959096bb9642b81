"""CEL as Kubernetes speaks it: the language from a library, Kubernetes' own functions from here."""

from berg.apiserver.cel.environment import CompileError, EvaluationError, Expression, compile_expression

__all__ = ["CompileError", "EvaluationError", "Expression", "compile_expression"]
