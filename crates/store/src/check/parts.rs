//! What a check asks of objects in parts.

use bytes::Bytes;

use super::probes::{Asked, Bench};
use crate::create::Created;

/// Parts that are full; a short one follows.
const PARTS: usize = 2;

impl Bench {
    pub(super) async fn takes_parts(&self) -> Asked {
        let target = self.key("in-parts");
        let part_bytes = self.store.part_bytes();
        // Told apart by its end alone: a store that takes no notice of who completes shows the one or the other.
        let body =
            |whose: &'static str| [Bytes::from(vec![7; PARTS * part_bytes]), Bytes::from_static(whose.as_bytes())];
        for (whose, expected) in [("one", Created::New), ("two", Created::Other)] {
            let mut upload = self.store.create_in_parts(&target);
            for piece in body(whose) {
                upload.push(piece).await?;
            }
            if expected == Created::New && self.store.exists(&target).await? {
                return Ok(Err(format!("'{target}' is there before it is completed")));
            }
            match upload.finish().await? {
                created if created == expected || created == Created::Mine && expected == Created::New => {}
                Created::Other => return Ok(Err(format!("another object stands at '{target}'"))),
                Created::New | Created::Mine => {
                    return Ok(Err(
                        "an object in parts was completed over another: the store does not look at `If-None-Match`"
                            .to_owned(),
                    ));
                }
            }
        }
        let mut given_up = self.store.create_in_parts(&self.key("given-up"));
        given_up.push(Bytes::from(vec![7; part_bytes + 1])).await?;
        given_up.abort().await;
        if self.store.exists(&self.key("given-up")).await? {
            return Ok(Err("an object in parts is there that was given up".to_owned()));
        }
        match self.store.get(&target).await? == body("one").concat() {
            true => Ok(Ok(format!("an object in {} parts was completed once, and is whole", PARTS + 1))),
            false => Ok(Err(format!("an object in {} parts came back changed", PARTS + 1))),
        }
    }
}
