"""MLflow's scoring server, around a model that says yes where x1 is larger than x2.

Run by its own interpreter: ``mlflow_server.py PORT``.
"""

import sys

import mlflow.pyfunc
import uvicorn
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, Schema


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return ["yes" if x1 > x2 else "no" for x1, x2 in zip(model_input["x1"], model_input["x2"], strict=True)]


signature = ModelSignature(inputs=Schema([ColSpec("double", "x1"), ColSpec("double", "x2")]))
mlflow.pyfunc.save_model("model", python_model=Model(), signature=signature, pip_requirements=[])
app = scoring_server.init(mlflow.pyfunc.load_model("model"))
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
