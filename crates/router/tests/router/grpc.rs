//! The gRPC ingress, asked by a real client.

use bytes::Bytes;
use http::uri::PathAndQuery;
use mobula_proto::v1;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::setup::{House, deployment, table, within};
use crate::worker::Call;

/// Any message will do; this one carries bytes.
type Message = v1::Data;

fn message(bytes: Bytes) -> Message {
    Message { bytes, end: false }
}

async fn channel(house: &House) -> Channel {
    let endpoint = Channel::from_shared(house.grpc.clone()).unwrap();
    within(endpoint.connect()).await.unwrap()
}

async fn ask(
    house: &House,
    path: &'static str,
    request: Request<Message>,
) -> Result<Response<Message>, Status> {
    let mut client = tonic::client::Grpc::new(channel(house).await)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    within(client.ready()).await.unwrap();
    let path = PathAndQuery::from_static(path);
    let codec: ProstCodec<Message, Message> = ProstCodec::default();
    within(client.unary(request, path, codec)).await
}

async fn echo(mut call: Call) {
    let body = call.call.body.clone();
    if call.call.end {
        call.grpc(0, "", body);
    } else {
        call.accept();
        let body = call.body().await;
        call.head(200, Bytes::new(), false);
        call.stream(body).await;
    }
}

#[tokio::test]
async fn a_unary_call_goes_through_with_its_metadata_and_returns_the_request_id() {
    let (house, worker) = House::with_worker(echo).await;
    let mut request = Request::new(message("hello".into()));
    for (name, value) in [
        ("request_id", "my-id"),
        ("application", "app1"),
        ("multiplexed_model_id", "m1"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request.set_timeout(std::time::Duration::from_secs(30));
    let response = ask(&house, "/test.S/Echo", request).await.unwrap();
    assert_eq!(response.get_ref().bytes, "hello");
    assert_eq!(response.metadata().get("request_id").unwrap(), "my-id");
    let call = worker.calls.lock().unwrap()[0].clone();
    assert_eq!(call.protocol(), v1::Protocol::Grpc);
    assert_eq!(
        (call.path.as_str(), call.model_id.as_str()),
        ("/test.S/Echo", "m1")
    );
    assert!(
        call.remaining_ms
            .is_some_and(|ms| ms > 20_000 && ms <= 30_000)
    );
}

#[tokio::test]
async fn ten_megabytes_go_through_in_one_message() {
    let (house, _worker) = House::with_worker(echo).await;
    let sent = Bytes::from(vec![42; 10 * 1024 * 1024]);
    let response = ask(&house, "/test.S/Echo", Request::new(message(sent.clone()))).await;
    assert!(response.unwrap().into_inner().bytes == sent);
}

#[tokio::test]
async fn a_replicas_status_reaches_the_caller() {
    let (house, _worker) = House::with_worker(|call: Call| async move {
        call.grpc(3, "no such model", Bytes::new());
    })
    .await;
    let status = ask(&house, "/test.S/Echo", Request::new(message("x".into()))).await;
    let status = status.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "no such model")
    );
    assert!(status.metadata().contains_key("request_id"));
}

#[tokio::test]
async fn each_outcome_has_its_code() {
    let (house, _worker) = House::with_worker(|call: Call| async move {
        call.accept();
        call.fault(v1::FaultKind::Exception);
    })
    .await;
    let hello = || Request::new(message("x".into()));
    let code = |answer: Result<_, Status>| answer.map(|_: Response<Message>| ()).unwrap_err();
    assert_eq!(
        code(ask(&house, "/test.S/Echo", hello()).await).code(),
        Code::Internal
    );
    assert_eq!(
        code(ask(&house, "/test.S/None", hello()).await).code(),
        Code::NotFound
    );
    let mut other = hello();
    other
        .metadata_mut()
        .insert("application", "other".parse().unwrap());
    assert_eq!(
        code(ask(&house, "/test.S/Echo", other).await).code(),
        Code::NotFound
    );

    house
        .head
        .set(|table| deployment(table).replicas.clear())
        .await;
    house
        .head
        .set(|table| deployment(table).max_queued_requests = 0)
        .await;
    let full = code(ask(&house, "/test.S/Echo", hello()).await);
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert_eq!(
        full.message(),
        "Request dropped due to backpressure (num_queued_requests=0, max_queued_requests=0)."
    );

    house
        .head
        .set(|table| deployment(table).failed = true)
        .await;
    assert_eq!(
        code(ask(&house, "/test.S/Echo", hello()).await).code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_deadline_exceeded() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = table(Vec::new());
    // The client's own time-out would be noticed by the client first.
    table.ingress.as_mut().unwrap().grpc_request_timeout_s = Some(0.2);
    let house = House::start(dir, table).await;
    let mut request = Request::new(message("x".into()));
    request
        .metadata_mut()
        .insert("request_id", "slow-one".parse().unwrap());
    let status = ask(&house, "/test.S/Echo", request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "Request slow-one timed out after 0.2s.");
}

#[tokio::test]
async fn rays_own_service_answers() {
    let (house, _worker) = House::with_worker(echo).await;
    // The answers' fields as the wire has them: field 1, a string.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Texts {
        #[prost(string, repeated, tag = "1")]
        texts: Vec<String>,
    }
    let mut client = tonic::client::Grpc::new(channel(&house).await);
    for (path, text) in [
        ("/ray.serve.RayServeAPIService/ListApplications", "app1"),
        ("/ray.serve.RayServeAPIService/Healthz", "success"),
    ] {
        within(client.ready()).await.unwrap();
        let codec: ProstCodec<Texts, Texts> = ProstCodec::default();
        let request = Request::new(Texts::default());
        let answer = client.unary(request, PathAndQuery::from_static(path), codec);
        assert_eq!(within(answer).await.unwrap().into_inner().texts, [text]);
    }
}

#[tokio::test]
async fn the_health_service_follows_the_table() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let (house, _worker) = House::with_worker(echo).await;
    let mut client = HealthClient::new(channel(&house).await);
    let request = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    // By Watch, because health follows a table a moment after the table is in force.
    for service in ["", "test.S"] {
        house
            .head
            .set(|table| table.applications[0].running = true)
            .await;
        let mut watch = within(client.watch(request(service)))
            .await
            .unwrap()
            .into_inner();
        for (running, wanted) in [
            (true, ServingStatus::Serving),
            (false, ServingStatus::NotServing),
        ] {
            house
                .head
                .set(|table| table.applications[0].running = running)
                .await;
            while within(watch.message()).await.unwrap().unwrap().status() != wanted {}
        }
    }
    let unknown = within(client.check(request("no.Such"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let dir = tempfile::tempdir().unwrap();
    let house = House::start(dir, table(Vec::new())).await;
    let mut client = ServerReflectionClient::new(channel(&house).await);
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = client.server_reflection_info(futures_util::stream::iter([request]));
    let mut answers = within(asked).await.unwrap().into_inner();
    let answer = within(answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list: {answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&"ray.serve.RayServeAPIService"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");

    use tonic_reflection::pb::v1alpha::server_reflection_client as alpha;
    let mut client = alpha::ServerReflectionClient::new(channel(&house).await);
    let empty = futures_util::stream::empty();
    assert!(within(client.server_reflection_info(empty)).await.is_ok());
}
