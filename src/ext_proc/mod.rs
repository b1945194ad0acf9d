//! Envoy's door: the external processing protocol.
//!
//! [`service`](Service) speaks gRPC, `exchange` is the protocol without I/O, `listing` that of a list of models, `marked`
//! knows Consort's own calls, `route`
//! sees to what goes on to its upstream after all, or to the plain door, and leaves the rest to [`dispatch`](crate::dispatch), whose replies `reply` spells.

mod codec;
mod exchange;
mod headers;
mod joined;
mod listing;
mod marked;
mod note;
mod reply;
mod route;
mod service;
mod settings;

pub use served::external_processor_server as server;
pub use service::{Service, Setup};
pub use settings::{ListModels, ModeOverride, Settings};

/// What fuzz targets need of the machine behind this door.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::exchange::oracle::{Attachment, Said, play};
    pub use super::pb::BodySendMode;
}

/// Envoy's service, made by `build.rs`.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::default_constructed_unit_structs,
    reason = "tonic wrote it"
)]
mod served {
    tonic::include_proto!("envoy.service.ext_proc.v3.ExternalProcessor");
}

/// The parts of Envoy's API that this door speaks.
mod pb {
    pub(super) use envoy_types::pb::envoy::config::core::v3::{
        HeaderMap, HeaderValue, HeaderValueOption, Metadata, header_value_option::HeaderAppendAction,
    };
    pub use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
    pub(super) use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::{
        ProcessingMode, processing_mode::HeaderSendMode,
    };
    pub(super) use envoy_types::pb::envoy::service::ext_proc::v3::{
        BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody, HttpHeaders,
        ImmediateResponse, ProcessingRequest, ProcessingResponse, StreamedBodyResponse,
        StreamedImmediateResponse, TrailersResponse, body_mutation::Mutation, processing_request::Request,
        processing_response::Response, streamed_immediate_response,
    };
    pub(super) use envoy_types::pb::envoy::r#type::v3::HttpStatus;
    pub(super) use envoy_types::pb::google::protobuf::{Duration, Struct, Value, value::Kind};
}
