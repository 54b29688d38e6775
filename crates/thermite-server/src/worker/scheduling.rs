//! What a worker needs of a scheduler, whatever device it runs on.

use thermite_device::Device;
use thermite_engine::scheduler::{EmbeddingJob, Event, Job, JobId, Status};
use thermite_engine::{Error, Scheduler, Tokenizer};

/// What a worker needs of a scheduler.
pub(crate) trait Scheduling {
    /// Takes a request on.
    fn submit(&mut self, job: Job) -> Result<JobId, Error>;
    /// Takes a request for an embedding on.
    fn submit_embedding(&mut self, job: EmbeddingJob) -> Result<JobId, Error>;
    /// Ends a request.
    fn cancel(&mut self, id: JobId);
    /// Runs one batch.
    fn step(&mut self) -> Result<Vec<Event>, Error>;
    /// What is in hand.
    fn status(&self) -> Status;
    /// The model's tokenizer.
    fn tokenizer(&self) -> &Tokenizer;
}

impl<D: Device> Scheduling for Scheduler<D> {
    fn submit(&mut self, job: Job) -> Result<JobId, Error> {
        Self::submit(self, job)
    }

    fn submit_embedding(&mut self, job: EmbeddingJob) -> Result<JobId, Error> {
        Self::submit_embedding(self, job)
    }

    fn cancel(&mut self, id: JobId) {
        Self::cancel(self, id);
    }

    fn step(&mut self) -> Result<Vec<Event>, Error> {
        Self::step(self)
    }

    fn status(&self) -> Status {
        Self::status(self)
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.engine().tokenizer()
    }
}
