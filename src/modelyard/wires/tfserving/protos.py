"""The messages of TensorFlow Serving's gRPC services, as far as they are read or written here.

The floats and doubles of a tensor are repeated and packed: in a message they lie just as in an array, so they are
read as the bytes that they are, which spares an object for each.
"""

from __future__ import annotations

from functools import cache

from modelyard.wires.protobuf import Messages

_GOOGLE = """
package google.protobuf;
message Int64Value { int64 value = 1; }
message Any { string type_url = 1; bytes value = 2; }
"""

_TENSORFLOW = """
package tensorflow;
message TensorShapeProto {
  message Dim { int64 size = 1; string name = 2; }
  repeated Dim dim = 2;
  bool unknown_rank = 3;
}
message TensorProto {
  int32 dtype = 1;
  TensorShapeProto tensor_shape = 2;
  int32 version_number = 3;
  bytes tensor_content = 4;
  repeated float float_val = 5;
  repeated double double_val = 6;
  repeated int32 int_val = 7;
  repeated bytes string_val = 8;
  repeated int64 int64_val = 10;
  repeated bool bool_val = 11;
  repeated int32 half_val = 13;
  repeated uint32 uint32_val = 16;
  repeated uint64 uint64_val = 17;
}
message TensorInfo { string name = 1; int32 dtype = 2; TensorShapeProto tensor_shape = 3; }
message SignatureDef {
  map<string, TensorInfo> inputs = 1;
  map<string, TensorInfo> outputs = 2;
  string method_name = 3;
}
message BytesList { repeated bytes value = 1; }
message FloatList { repeated float value = 1; }
message Int64List { repeated int64 value = 1; }
message Feature {
  oneof kind { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; }
}
message Features { map<string, Feature> feature = 1; }
message Example { Features features = 1; }
"""

_SERVING = """
package tensorflow.serving;
service PredictionService {
  rpc Classify(ClassificationRequest) returns (ClassificationResponse);
  rpc Regress(RegressionRequest) returns (RegressionResponse);
  rpc Predict(PredictRequest) returns (PredictResponse);
  rpc MultiInference(MultiInferenceRequest) returns (MultiInferenceResponse);
  rpc GetModelMetadata(GetModelMetadataRequest) returns (GetModelMetadataResponse);
}
service ModelService {
  rpc GetModelStatus(GetModelStatusRequest) returns (GetModelStatusResponse);
  rpc HandleReloadConfigRequest(ReloadConfigRequest) returns (ReloadConfigResponse);
}
message ModelSpec {
  string name = 1;
  oneof version_choice { google.protobuf.Int64Value version = 2; string version_label = 4; }
  string signature_name = 3;
}
message PredictRequest {
  ModelSpec model_spec = 1;
  map<string, TensorProto> inputs = 2;
  repeated string output_filter = 3;
}
message PredictResponse { map<string, TensorProto> outputs = 1; ModelSpec model_spec = 2; }

message ExampleList { repeated Example examples = 1; }
message ExampleListWithContext { repeated Example examples = 1; Example context = 2; }
message Input {
  oneof kind { ExampleList example_list = 1; ExampleListWithContext example_list_with_context = 2; }
}
message Class { string label = 1; float score = 2; }
message Classifications { repeated Class classes = 1; }
message ClassificationResult { repeated Classifications classifications = 1; }
message ClassificationRequest { ModelSpec model_spec = 1; Input input = 2; }
message ClassificationResponse { ClassificationResult result = 1; ModelSpec model_spec = 2; }
message Regression { float value = 1; }
message RegressionResult { repeated Regression regressions = 1; }
message RegressionRequest { ModelSpec model_spec = 1; Input input = 2; }
message RegressionResponse { RegressionResult result = 1; ModelSpec model_spec = 2; }
message InferenceTask { ModelSpec model_spec = 1; string method_name = 2; }
message InferenceResult {
  ModelSpec model_spec = 1;
  oneof result { ClassificationResult classification_result = 2; RegressionResult regression_result = 3; }
}
message MultiInferenceRequest { repeated InferenceTask tasks = 1; Input input = 2; }
message MultiInferenceResponse { repeated InferenceResult results = 1; }

message SignatureDefMap { map<string, SignatureDef> signature_def = 1; }
message GetModelMetadataRequest { ModelSpec model_spec = 1; repeated string metadata_field = 2; }
message GetModelMetadataResponse { ModelSpec model_spec = 1; map<string, google.protobuf.Any> metadata = 2; }

message StatusProto { int32 error_code = 1; string error_message = 2; }
message GetModelStatusRequest { ModelSpec model_spec = 1; }
message ModelVersionStatus { int64 version = 1; int32 state = 2; StatusProto status = 3; }
message GetModelStatusResponse { repeated ModelVersionStatus model_version_status = 1; }

message Latest { uint32 num_versions = 1; }
message All { }
message Specific { repeated int64 versions = 1; }
message ServableVersionPolicy {
  oneof policy_choice { Latest latest = 100; All all = 101; Specific specific = 102; }
}
message ModelConfig {
  string name = 1;
  string base_path = 2;
  string model_platform = 4;
  ServableVersionPolicy model_version_policy = 7;
  map<string, int64> version_labels = 8;
}
message ModelConfigList { repeated ModelConfig config = 1; }
message ModelServerConfig {
  oneof config { ModelConfigList model_config_list = 1; google.protobuf.Any custom_model_config = 2; }
}
message ReloadConfigRequest { ModelServerConfig config = 1; }
message ReloadConfigResponse { StatusProto status = 1; }
"""


@cache
def messages() -> Messages:
    """The message classes, made where gRPC is first used."""
    return Messages(_GOOGLE, _TENSORFLOW, _SERVING, as_bytes=("float_val", "double_val"))
