//! Requests for text under way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::stream::{SelectAll, Stream, StreamExt, select_all};
use thermite_engine::FinishReason;
use thermite_engine::scheduler::EmbeddingJob;
use tokio::sync::mpsc::Receiver;

use crate::model::Model;
use crate::openai::{ApiError, Chosen, Usage};
use crate::worker::{Failure, Order, Refusal, TextJob, Update, Work};

/// The answers to some prompts, while they come.
pub(crate) struct Generation {
    updates: SelectAll<Updates>,
    choices: usize,
    n: usize,
    prompt_tokens: usize,
    cached_tokens: usize,
    tokens: usize,
}

/// What one of the answers has to say next.
#[derive(Debug)]
pub(crate) struct Said {
    /// Which of the answers.
    pub(crate) index: usize,
    pub(crate) piece: Piece,
}

/// More of an answer.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Text, and a token where its likelihood was asked for.
    Text { text: String, chosen: Option<Chosen> },
    /// It ends here.
    End(FinishReason),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) text: String,
    /// Its tokens, where their likelihood was asked for.
    pub(crate) chosen: Vec<Chosen>,
    pub(crate) reason: FinishReason,
}

impl Generation {
    /// Hands `n` requests like `text` for each of `prompts` over to the model.
    ///
    /// # Errors
    /// 400 for a prompt that the context does not hold, or for what the engine refuses; 429 if there is no place.
    pub(crate) async fn start(
        model: &Arc<Model>,
        prompts: Vec<Vec<u32>>,
        n: usize,
        text: TextJob,
        arrived: Instant,
    ) -> Result<Self, ApiError> {
        let context = model.context();
        for prompt in &prompts {
            check_length(prompt.len(), context)?;
        }
        let prompt_tokens = prompts.iter().map(Vec::len).sum();
        let order = |prompt: &[u32], i: usize| {
            let mut text = text.clone();
            let job = &mut text.job;
            job.prompt = prompt.to_vec();
            job.sampling.seed = job.sampling.seed.map(|seed| seed.wrapping_add(i as u64));
            job.max_tokens = Some(job.max_tokens.unwrap_or(context).min(context - prompt.len()));
            Order { work: Work::Text(text), arrived }
        };
        let order = &order;
        let orders: Vec<Order> =
            prompts.iter().flat_map(|prompt| (0..n).map(move |i| order(prompt, i))).collect();
        let choices = orders.len();
        let receivers = hand_over(model, orders).await?;
        let updates = receivers.into_iter().enumerate();
        let updates = select_all(updates.map(|(index, receiver)| Updates { index, receiver, ended: false }));
        Ok(Self { updates, choices, n, prompt_tokens, cached_tokens: 0, tokens: 0 })
    }

    /// What comes next; `None` after the end of the last answer.
    ///
    /// # Errors
    /// What made an answer fail.
    pub(crate) async fn next(&mut self) -> Option<Result<Said, ApiError>> {
        loop {
            let (index, update) = self.updates.next().await?;
            let piece = match update {
                Update::Accepted | Update::Embedded(_) => continue,
                Update::Started { cached_tokens } => {
                    // a prompt counts once, however many answers it has
                    if index % self.n == 0 {
                        self.cached_tokens += cached_tokens;
                    }
                    continue;
                }
                Update::Text { text, chosen } => Piece::Text { text, chosen },
                Update::Finished { reason, tokens } => {
                    self.tokens += tokens;
                    Piece::End(reason)
                }
                Update::Failed(failure) => return Some(Err(failed(&failure))),
            };
            return Some(Ok(Said { index, piece }));
        }
    }

    /// Waits for all of it.
    ///
    /// # Errors
    /// What made an answer fail.
    pub(crate) async fn collect(mut self) -> Result<(Vec<Answered>, Usage), ApiError> {
        let empty = Answered { text: String::new(), chosen: Vec::new(), reason: FinishReason::Cancelled };
        let mut answers = vec![empty; self.choices];
        while let Some(said) = self.next().await {
            let Said { index, piece } = said?;
            match piece {
                Piece::Text { text, chosen } => {
                    answers[index].text.push_str(&text);
                    answers[index].chosen.extend(chosen);
                }
                Piece::End(reason) => answers[index].reason = reason,
            }
        }
        Ok((answers, self.usage()))
    }

    /// How many answers there are.
    pub(crate) const fn choices(&self) -> usize {
        self.choices
    }

    /// The numbers of tokens so far.
    pub(crate) const fn usage(&self) -> Usage {
        Usage::new(self.prompt_tokens, self.cached_tokens, self.tokens)
    }
}

/// Hands orders over; gives what becomes of each once all are accepted. An answer has a status: what is refused is
/// known before it begins.
///
/// # Errors
/// 429 if there is no place; 400 for what the engine refuses.
async fn hand_over(model: &Model, orders: Vec<Order>) -> Result<Vec<Receiver<Update>>, ApiError> {
    let mut receivers = model.worker.submit(orders).map_err(refusal)?;
    for receiver in &mut receivers {
        match receiver.recv().await {
            Some(Update::Accepted) => {}
            Some(Update::Failed(failure)) => return Err(failed(&failure)),
            _ => return Err(failed(&Failure::Panic)),
        }
    }
    Ok(receivers)
}

/// What each of `texts` means to the model: vectors of length 1.
///
/// # Errors
/// As [`Generation::start`].
pub(crate) async fn embed(
    model: &Model,
    texts: Vec<Vec<u32>>,
    arrived: Instant,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let order = |tokens| Order { work: Work::Embedding(EmbeddingJob { tokens, normalize: true }), arrived };
    let receivers = hand_over(model, texts.into_iter().map(order).collect()).await?;
    let mut embeddings = Vec::with_capacity(receivers.len());
    for mut receiver in receivers {
        embeddings.push(loop {
            match receiver.recv().await {
                Some(Update::Embedded(embedding)) => break embedding,
                Some(Update::Failed(failure)) => return Err(failed(&failure)),
                Some(_) => {}
                None => return Err(failed(&Failure::Panic)),
            }
        });
    }
    Ok(embeddings)
}

/// What OpenAI's API calls it.
pub(crate) const fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Cancelled => "stop",
    }
}

fn check_length(tokens: usize, context: usize) -> Result<(), ApiError> {
    if tokens < context {
        return Ok(());
    }
    let message = format!(
        "the prompt has {tokens} tokens, but the model's context holds {context}, of which the answer needs at least 1"
    );
    Err(ApiError::invalid(message).code("context_length_exceeded"))
}

fn refusal(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Full { places } => {
            ApiError::busy(format!("all {places} places for requests are taken; try again later"))
        }
        Refusal::TooMany { places } => {
            ApiError::invalid(format!("the request wants more answers than the server has places: {places}"))
        }
        Refusal::Gone => failed(&Failure::Panic),
    }
}

fn failed(failure: &Failure) -> ApiError {
    match failure {
        Failure::Engine(error) => ApiError::from(&**error),
        Failure::Panic => {
            ApiError::server("the model's thread has failed: /health says more").code("model_failed")
        }
        Failure::Ended => ApiError::unavailable("the server is shutting down").code("shutting_down"),
    }
}

/// The updates of one request. One that breaks off without an end has failed.
struct Updates {
    index: usize,
    receiver: Receiver<Update>,
    ended: bool,
}

impl Stream for Updates {
    type Item = (usize, Update);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(cx).map(|update| {
            let update = update.unwrap_or(Update::Failed(Failure::Panic));
            self.ended = matches!(update, Update::Finished { .. } | Update::Failed(_));
            Some((self.index, update))
        })
    }
}
