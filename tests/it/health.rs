//! What probes and tools ask the ext_proc listener over gRPC.

use consort_testkit::service::Service;
use futures_util::StreamExt;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::stack::{config, ms, provider};

const DOOR: &str = "envoy.service.ext_proc.v3.ExternalProcessor";

async fn started(more: &str) -> (Service, Channel) {
    let provider = provider().await;
    let service = Service::start(env!("CARGO_BIN_EXE_consort"), &config(&provider, "", "", more)).await;
    let channel =
        Channel::from_shared(format!("http://{}", service.addr())).unwrap().connect().await.unwrap();
    (service, channel)
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_is_told_of_the_process_and_of_the_door() {
    let (service, channel) = started("drain: {delay_ms: 1000}").await;
    let mut health = HealthClient::new(channel);
    for name in ["", DOOR] {
        let told = health.check(of(name)).await.unwrap().into_inner();
        assert_eq!(told.status(), ServingStatus::Serving, "{name}");
    }
    let unknown = health.check(of("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watched = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    service.signal("TERM");
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let told = health.check(of(DOOR)).await.unwrap().into_inner();
    assert_eq!(told.status(), ServingStatus::NotServing, "it still answers");
    assert!(watched.next().await.is_none(), "who watches does not hold the end up");
    assert_eq!(service.wait_exit(ms(10_000)).await.code(), Some(0));
}

#[tokio::test]
async fn tools_see_by_reflection_what_there_is() {
    use tonic_reflection::pb::{v1, v1alpha};
    let (_service, channel) = started("").await;
    let asked = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let requests = tokio_stream::once(asked);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(
        names.contains(&DOOR.to_owned()) && names.contains(&"grpc.health.v1.Health".to_owned()),
        "{names:?}"
    );
    let asked = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "grpc.health.v1.Health".to_owned(),
        )),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::once(asked)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(
        answer,
        v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)
    ));
}
