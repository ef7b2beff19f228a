//! Requests that go on when their client leaves, because it said so
//! (`x-request-disconnect-disabled: ?1`). The answer is read to its end by nobody in
//! particular, so that the replica can finish.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::pieces::CutOff;
use super::reply::{ReplyBody, Streamed};
use crate::limits::{LASTING_MAX, LASTING_SECONDS_MAX};

/// An answer that is read to its end, by the client or without it.
pub struct Lasting {
    /// None: it was handed to a task.
    streamed: Option<Box<Streamed>>,
    tasks: TaskTracker,
}

/// Whether one more may go on without its client.
pub fn has_room(tasks: &TaskTracker) -> bool {
    tasks.len() < LASTING_MAX
}

/// Answers a request in a task of its own; dropping the future leaves the task alone.
pub async fn answer(
    tasks: &TaskTracker,
    answering: impl Future<Output = Response<ReplyBody>> + Send + 'static,
) -> Option<Response<ReplyBody>> {
    let (mut client, answer) = oneshot::channel();
    let rest = tasks.clone();
    tasks.spawn(async move {
        tokio::pin!(answering);
        let response = tokio::select! {
            response = &mut answering => response,
            () = client.closed() => {
                match tokio::time::timeout(LASTING_SECONDS_MAX, answering).await {
                    Ok(response) => response,
                    Err(_) => return,
                }
            }
        };
        let response = response.map(|body| body.lasting(rest));
        // A client that left meanwhile drops it, which is when the rest is read.
        drop(client.send(response));
    });
    answer.await.ok()
}

// === impl Lasting ===

impl Lasting {
    pub fn new(streamed: Box<Streamed>, tasks: TaskTracker) -> Lasting {
        Lasting {
            streamed: Some(streamed),
            tasks,
        }
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match &mut self.streamed {
            Some(streamed) => streamed.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        if let Some(streamed) = self.streamed.take().filter(|streamed| !streamed.is_over()) {
            let reading = tokio::time::timeout(LASTING_SECONDS_MAX, read(streamed));
            self.tasks.spawn(reading);
        }
    }
}

async fn read(mut streamed: Box<Streamed>) {
    let mut streamed = Pin::new(&mut streamed);
    while let Some(Ok(_)) = poll_fn(|cx| streamed.poll_frame(cx)).await {}
}
