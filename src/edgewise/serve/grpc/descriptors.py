"""The messages of the protocol, as a table: names, field numbers and types, from which protobuf's descriptors are built here.

Open Inference Protocol v2 (KServe's open_inference_grpc.proto), and Triton's extensions of it. The numbers are facts of the protocol. A
field is "number name type"; a type with * is repeated, `map:T` is a map from strings, `@name` puts a field into a oneof. Messages of ours
lack what nothing here can fill (GPUs, sequences, ensembles); a client that knows those fields reads them as absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FILE = "inference.proto"
PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string, 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions string*",
    "ModelMetadataRequest": "1 name string, 2 version string",
    "ModelMetadataResponse": "1 name string, 2 versions string*, 3 platform string,"
    " 4 inputs ModelMetadataResponse.TensorMetadata*, 5 outputs ModelMetadataResponse.TensorMetadata*",
    "ModelMetadataResponse.TensorMetadata": "1 name string, 2 datatype string, 3 shape int64*",
    "InferParameter": "1 bool_param bool @parameter_choice, 2 int64_param int64 @parameter_choice, 3 string_param string @parameter_choice,"
    " 4 double_param double @parameter_choice, 5 uint64_param uint64 @parameter_choice",
    "InferTensorContents": "1 bool_contents bool*, 2 int_contents int32*, 3 int64_contents int64*, 4 uint_contents uint32*,"
    " 5 uint64_contents uint64*, 6 fp32_contents float*, 7 fp64_contents double*, 8 bytes_contents bytes*",
    "ModelInferRequest": "1 model_name string, 2 model_version string, 3 id string, 4 parameters map:InferParameter,"
    " 5 inputs ModelInferRequest.InferInputTensor*, 6 outputs ModelInferRequest.InferRequestedOutputTensor*, 7 raw_input_contents bytes*",
    "ModelInferRequest.InferInputTensor": "1 name string, 2 datatype string, 3 shape int64*, 4 parameters map:InferParameter,"
    " 5 contents InferTensorContents",
    "ModelInferRequest.InferRequestedOutputTensor": "1 name string, 2 parameters map:InferParameter",
    "ModelInferResponse": "1 model_name string, 2 model_version string, 3 id string, 4 parameters map:InferParameter,"
    " 5 outputs ModelInferResponse.InferOutputTensor*, 6 raw_output_contents bytes*",
    "ModelInferResponse.InferOutputTensor": "1 name string, 2 datatype string, 3 shape int64*, 4 parameters map:InferParameter,"
    " 5 contents InferTensorContents",
    "ModelStreamInferResponse": "1 error_message string, 2 infer_response ModelInferResponse",
    "ModelConfigRequest": "1 name string, 2 version string",
    "ModelConfigResponse": "1 config ModelConfig",
    "ModelConfig": "1 name string, 2 platform string, 3 version_policy ModelVersionPolicy, 4 max_batch_size int32, 5 input ModelInput*,"
    " 6 output ModelOutput*, 7 instance_group ModelInstanceGroup*, 8 default_model_filename string,"
    " 11 dynamic_batching ModelDynamicBatching @scheduling_choice, 14 parameters map:ModelParameter, 17 backend string,"
    " 19 model_transaction_policy ModelTransactionPolicy, 24 response_cache ModelResponseCache",
    "ModelVersionPolicy": "1 latest ModelVersionPolicy.Latest @policy_choice, 2 all ModelVersionPolicy.All @policy_choice,"
    " 3 specific ModelVersionPolicy.Specific @policy_choice",
    "ModelVersionPolicy.Latest": "1 num_versions uint32",
    "ModelVersionPolicy.All": "",
    "ModelVersionPolicy.Specific": "1 versions int64*",
    "ModelInput": "1 name string, 2 data_type DataType, 3 format ModelInput.Format, 4 dims int64*, 8 optional bool",
    "ModelOutput": "1 name string, 2 data_type DataType, 3 dims int64*, 4 label_filename string",
    "ModelInstanceGroup": "1 name string, 2 count int32, 4 kind ModelInstanceGroup.Kind",
    "ModelDynamicBatching": "1 preferred_batch_size int32*, 2 max_queue_delay_microseconds uint64, 3 preserve_ordering bool,"
    " 4 priority_levels uint64, 5 default_priority_level uint64",
    "ModelParameter": "1 string_value string",
    "ModelTransactionPolicy": "1 decoupled bool",
    "ModelResponseCache": "1 enable bool",
    "ModelStatisticsRequest": "1 name string, 2 version string",
    "ModelStatisticsResponse": "1 model_stats ModelStatistics*",
    "ModelStatistics": "1 name string, 2 version string, 3 last_inference uint64, 4 inference_count uint64, 5 execution_count uint64,"
    " 6 inference_stats InferStatistics, 7 batch_stats InferBatchStatistics*, 8 memory_usage MemoryUsage*",
    "StatisticDuration": "1 count uint64, 2 ns uint64",
    "InferStatistics": "1 success StatisticDuration, 2 fail StatisticDuration, 3 queue StatisticDuration,"
    " 4 compute_input StatisticDuration, 5 compute_infer StatisticDuration, 6 compute_output StatisticDuration,"
    " 7 cache_hit StatisticDuration, 8 cache_miss StatisticDuration",
    "InferBatchStatistics": "1 batch_size uint64, 2 compute_input StatisticDuration, 3 compute_infer StatisticDuration,"
    " 4 compute_output StatisticDuration",
    "MemoryUsage": "1 type string, 2 id int64, 3 byte_size uint64",
    "ModelRepositoryParameter": "1 bool_param bool @parameter_choice, 2 int64_param int64 @parameter_choice,"
    " 3 string_param string @parameter_choice, 4 bytes_param bytes @parameter_choice",
    "RepositoryIndexRequest": "1 repository_name string, 2 ready bool",
    "RepositoryIndexResponse": "1 models RepositoryIndexResponse.ModelIndex*",
    "RepositoryIndexResponse.ModelIndex": "1 name string, 2 version string, 3 state string, 4 reason string",
    "RepositoryModelLoadRequest": "1 repository_name string, 2 model_name string, 3 parameters map:ModelRepositoryParameter",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "1 repository_name string, 2 model_name string, 3 parameters map:ModelRepositoryParameter",
    "RepositoryModelUnloadResponse": "",
    "SystemSharedMemoryStatusRequest": "1 name string",
    "SystemSharedMemoryStatusResponse": "1 regions map:SystemSharedMemoryStatusResponse.RegionStatus",
    "SystemSharedMemoryStatusResponse.RegionStatus": "1 name string, 2 key string, 3 offset uint64, 4 byte_size uint64",
    "SystemSharedMemoryRegisterRequest": "1 name string, 2 key string, 3 offset uint64, 4 byte_size uint64",
    "SystemSharedMemoryRegisterResponse": "",
    "SystemSharedMemoryUnregisterRequest": "1 name string",
    "SystemSharedMemoryUnregisterResponse": "",
}  # fmt: skip
ENUMS = {
    "DataType": "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32 TYPE_INT64 TYPE_FP16"
    " TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16",
    "ModelInput.Format": "FORMAT_NONE FORMAT_NHWC FORMAT_NCHW",
    "ModelInstanceGroup.Kind": "KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL",
}
# Each takes NAMERequest and gives NAMEResponse.
METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
)

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
}


def file() -> Any:
    """The FileDescriptorProto of all messages and of the service."""
    made = descriptor_pb2.FileDescriptorProto(name=FILE, package=PACKAGE, syntax="proto3")
    found: dict[str, Any] = {}
    for name, fields in MESSAGES.items():  # what contains another stands before it
        outer, _, own = name.rpartition(".")
        found[name] = (found[outer].nested_type if outer else made.message_type).add(name=own)
        _fill(found[name], f".{PACKAGE}.{name}", filter(None, map(str.strip, fields.split(","))))
    for name, values in ENUMS.items():
        outer, _, own = name.rpartition(".")
        enum = (found[outer].enum_type if outer else made.enum_type).add(name=own)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    service = made.service.add(name=SERVICE.rpartition(".")[2])
    for name in METHODS:
        request = "ModelInferRequest" if name == "ModelStreamInfer" else f"{name}Request"
        streams = name == "ModelStreamInfer"
        service.method.add(
            name=name,
            input_type=f".{PACKAGE}.{request}",
            output_type=f".{PACKAGE}.{name}Response",
            client_streaming=streams,
            server_streaming=streams,
        )
    return made


def _fill(message: Any, full: str, fields: Iterable[str]) -> None:
    for text in fields:
        number, name, kind, *oneof = text.split()
        field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
        if kind.startswith("map:"):
            entry = message.nested_type.add(name="".join(word.capitalize() for word in name.split("_")) + "Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
            _typed(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), kind.removeprefix("map:"))
            field.label, field.type, field.type_name = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE, f"{full}.{entry.name}"
            continue
        if kind.endswith("*"):
            field.label = _Field.LABEL_REPEATED
        _typed(field, kind.rstrip("*"))
        if oneof:
            known = [each.name for each in message.oneof_decl]
            if oneof[0][1:] not in known:
                message.oneof_decl.add(name=oneof[0][1:])
                known.append(oneof[0][1:])
            field.oneof_index = known.index(oneof[0][1:])


def _typed(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = _Field.TYPE_ENUM if kind in ENUMS else _Field.TYPE_MESSAGE
    field.type_name = f".{PACKAGE}.{kind}"


@cache
def pool() -> Any:
    """A pool of its own: another library's descriptors of the same protocol may be in protobuf's."""
    made = descriptor_pool.DescriptorPool()
    made.Add(file())
    return made


@cache
def message(name: str) -> Any:
    """The class of one message: `message("ModelReadyRequest")`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))
