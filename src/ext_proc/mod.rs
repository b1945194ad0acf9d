//! Envoy's door: the external processing protocol.
//!
//! [`service`](Service) speaks gRPC, `exchange` is the protocol without I/O, `route` sees to what goes
//! on to its upstream after all and leaves the rest to [`dispatch`](crate::dispatch), whose replies `reply` spells.

mod exchange;
mod headers;
mod joined;
mod note;
mod reply;
mod route;
mod service;
mod settings;

pub use service::{Service, Setup};
pub use settings::{ModeOverride, Settings};

/// The parts of Envoy's API that this door speaks.
mod pb {
    pub(super) use envoy_types::pb::envoy::config::core::v3::{
        HeaderMap, HeaderValue, HeaderValueOption, Metadata, header_value_option::HeaderAppendAction,
    };
    pub(super) use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::{
        ProcessingMode,
        processing_mode::{BodySendMode, HeaderSendMode},
    };
    pub(super) use envoy_types::pb::envoy::service::ext_proc::v3::{
        BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody, HttpHeaders,
        ImmediateResponse, ProcessingRequest, ProcessingResponse, StreamedBodyResponse,
        StreamedImmediateResponse, TrailersResponse, body_mutation::Mutation,
        external_processor_server::ExternalProcessor, processing_request::Request,
        processing_response::Response, streamed_immediate_response,
    };
    pub(super) use envoy_types::pb::envoy::r#type::v3::HttpStatus;
    pub(super) use envoy_types::pb::google::protobuf::{Duration, Struct, Value, value::Kind};
}
