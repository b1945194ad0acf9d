//! The least that an external processor can do in the body mode that Consort uses: it asks for the body as Consort does
//! and hands everything back as it came. What is slower than this with it is Envoy's and gRPC's share.

use std::net::SocketAddr;
use std::pin::Pin;

use async_stream::stream;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::{
    BodySendMode, HeaderSendMode,
};
use envoy_types::pb::envoy::service::ext_proc::v3::body_mutation::Mutation;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{
    ExternalProcessor, ExternalProcessorServer,
};
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Asked;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Told;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeadersResponse, ProcessingRequest, ProcessingResponse,
    StreamedBodyResponse, TrailersResponse,
};
use futures_util::Stream;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::ServingStatus;

use crate::Result;

/// Envoy's bound on a piece that it is handed back.
const MAX_PIECE: usize = 64 << 10;

/// Serves until it is killed; `told` hears where.
pub async fn serve(told: impl FnOnce(SocketAddr)) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    told(listener.local_addr()?);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ExternalProcessorServer<Nothing>>().await;
    reporter.set_service_status("", ServingStatus::Serving).await;
    // The same windows and bounds as Consort's: what is compared is what is done with the messages.
    Server::builder()
        .http2_max_pending_accept_reset_streams(Some(65_536))
        .initial_stream_window_size(Some(1 << 20))
        .initial_connection_window_size(Some(16 << 20))
        .add_service(health)
        .add_service(ExternalProcessorServer::new(Nothing).max_decoding_message_size(64 << 20))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

struct Nothing;

type Replies = Pin<Box<dyn Stream<Item = std::result::Result<ProcessingResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ExternalProcessor for Nothing {
    type ProcessStream = Replies;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> std::result::Result<Response<Replies>, Status> {
        let mut inbound = request.into_inner();
        Ok(Response::new(Box::pin(stream! {
            let mut is_first = true;
            while let Some(asked) = inbound.message().await.transpose() {
                match asked.map(|asked| asked.request) {
                    Ok(Some(Asked::RequestHeaders(headers))) if headers.end_of_stream => {
                        yield Ok(pass_headers());
                        return;
                    }
                    Ok(Some(Asked::RequestHeaders(_))) => yield Ok(body_wanted()),
                    Ok(Some(Asked::RequestBody(body))) => {
                        if std::mem::take(&mut is_first) {
                            yield Ok(pass_headers());
                        }
                        let end = body.end_of_stream;
                        for piece in echo(body.body, end) {
                            yield Ok(piece);
                        }
                        if end {
                            return;
                        }
                    }
                    Ok(Some(Asked::RequestTrailers(_))) => {
                        yield Ok(said(Told::RequestTrailers(TrailersResponse::default())));
                        return;
                    }
                    Ok(_) => yield Err(Status::unimplemented("not in this mode")),
                    Err(status) => yield Err(status),
                }
            }
        })))
    }
}

fn said(response: Told) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), ..ProcessingResponse::default() }
}

fn body_wanted() -> ProcessingResponse {
    ProcessingResponse {
        mode_override: Some(ProcessingMode {
            request_header_mode: HeaderSendMode::Default.into(),
            request_body_mode: BodySendMode::FullDuplexStreamed.into(),
            request_trailer_mode: HeaderSendMode::Send.into(),
            response_header_mode: HeaderSendMode::Skip.into(),
            response_body_mode: BodySendMode::None.into(),
            response_trailer_mode: HeaderSendMode::Skip.into(),
        }),
        ..ProcessingResponse::default()
    }
}

fn pass_headers() -> ProcessingResponse {
    said(Told::RequestHeaders(HeadersResponse { response: Some(CommonResponse::default()) }))
}

fn echo(body: Vec<u8>, end: bool) -> Vec<ProcessingResponse> {
    if body.len() <= MAX_PIECE {
        return vec![handed_back(body, end)];
    }
    let pieces = body.chunks(MAX_PIECE);
    let last = pieces.len();
    pieces.enumerate().map(|(i, piece)| handed_back(piece.to_vec(), end && i + 1 == last)).collect()
}

fn handed_back(body: Vec<u8>, end_of_stream: bool) -> ProcessingResponse {
    let piece = StreamedBodyResponse { body, end_of_stream, ..StreamedBodyResponse::default() };
    let mutation = BodyMutation { mutation: Some(Mutation::StreamedResponse(piece)) };
    let common = CommonResponse { body_mutation: Some(mutation), ..CommonResponse::default() };
    said(Told::RequestBody(BodyResponse { response: Some(common) }))
}
