"""The messages of Seldon's protocol over gRPC, as far as this server reads and writes them."""

from __future__ import annotations

from functools import cache

from modelyard.wires.protobuf import Messages

#: Of protobuf's own well-known types, in a package of ours: a pool with its own would not know them as special.
_STRUCT = """
package values;

enum NullValue { NULL_VALUE = 0; }
message Struct { map<string, Value> fields = 1; }
message Value {
  oneof kind {
    NullValue null_value = 1;
    double number_value = 2;
    string string_value = 3;
    bool bool_value = 4;
    Struct struct_value = 5;
    ListValue list_value = 6;
  }
}
message ListValue { repeated Value values = 1; }
message Any { string type_url = 1; bytes value = 2; }
message Empty {}
"""

_TEXT = """
package seldon.protos;

service Seldon {
  rpc Predict(SeldonMessage) returns (SeldonMessage);
  rpc SendFeedback(Feedback) returns (SeldonMessage);
  rpc ModelMetadata(SeldonModelMetadataRequest) returns (SeldonModelMetadata);
}
service Model {
  rpc Predict(SeldonMessage) returns (SeldonMessage);
  rpc SendFeedback(Feedback) returns (SeldonMessage);
  rpc Metadata(values.Empty) returns (SeldonModelMetadata);
}
service Generic { rpc SendFeedback(Feedback) returns (SeldonMessage); }

message SeldonMessage {
  Status status = 1;
  Meta meta = 2;
  oneof data_oneof {
    DefaultData data = 3;
    bytes binData = 4;
    string strData = 5;
    values.Value jsonData = 6;
    values.Any customData = 7;
  }
}
message DefaultData {
  repeated string names = 1;
  oneof data_oneof {
    Tensor tensor = 2;
    values.ListValue ndarray = 3;
    values.Any tftensor = 4;
  }
}
message Tensor { repeated int32 shape = 1; repeated double values = 2; }
message Meta { string puid = 1; }
message Status {
  enum StatusFlag { SUCCESS = 0; FAILURE = 1; }
  int32 code = 1;
  string info = 2;
  string reason = 3;
  StatusFlag status = 4;
}
message Feedback {
  SeldonMessage request = 1;
  SeldonMessage response = 2;
  float reward = 3;
  SeldonMessage truth = 4;
}
message SeldonModelMetadataRequest { string name = 1; }
message SeldonMessageMetadata {
  string messagetype = 1;
  values.Value schema = 2;
  string name = 3;
  string datatype = 4;
  repeated int64 shape = 5;
}
message SeldonModelMetadata {
  string name = 1;
  repeated string versions = 2;
  string platform = 3;
  repeated SeldonMessageMetadata inputs = 4;
  repeated SeldonMessageMetadata outputs = 5;
  map<string, string> custom = 6;
}
"""


@cache
def messages() -> Messages:
    """The message classes; made when they are first needed."""
    return Messages(_STRUCT, _TEXT)
