//! A shard's end of what the reading thread hands over.

use super::hand_over::HandOver;
use super::reader::Wish;
use super::watermark::Watermarks;
use super::window::Place;
use crate::bus::{Consumer, Delivered};
use crate::store::StoreError;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use std::sync::{Arc, mpsc};

/// A shard's end of one assignment; the partition is released with it.
pub(super) struct Assigned {
    pub(super) queue: Arc<HandOver>,
    pub(super) place: Place,
    pub(super) generation: u64,
    pub(super) wishes: mpsc::Sender<Wish>,
    pub(super) watermarks: Watermarks,
    pub(super) at_end: bool,
}

#[async_trait]
impl Consumer for Assigned {
    async fn take(&mut self, limit: usize) -> Result<Vec<Delivered>, StoreError> {
        let taken = self.queue.take(limit)?;
        self.at_end = taken.at_end;
        if taken.resume {
            self.wishes.send(Wish::Resume { place: self.place, generation: self.generation }).ok();
        }
        Ok(taken.records)
    }

    fn at_end(&self) -> bool {
        self.at_end
    }

    fn look(&mut self) -> BoxFuture<'static, bool> {
        self.watermarks.look(self.place, Arc::clone(&self.queue))
    }

    async fn ready(&mut self) {
        self.queue.ready().await;
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.wishes.send(Wish::Release { place: self.place, generation: self.generation }).ok();
    }
}
