//! Objects in parts on their way: each part is held until the upload is completed or given up.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Arc, MutexGuard};
use std::time::SystemTime;

use bytes::BytesMut;

use super::objects::{Condition, Held, Missing, New, Objects, now};

/// The least that a part may have which is not the last, as S3 has it.
const PART_BYTES_MIN: usize = 5 << 20;
/// Most parts of an upload, as S3 has it.
const PARTS_MAX: i32 = 10_000;

/// Those that were begun, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    open: BTreeMap<String, Upload>,
    begun: u64,
}

#[derive(Debug)]
struct Upload {
    bucket: String,
    key: String,
    about: About,
    begun: SystemTime,
    parts: BTreeMap<i32, Part>,
    /// Its bookkeeping counts as long as it is open.
    _room: Held,
}

/// What is told when an upload begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) content_type: Option<String>,
    pub(crate) metadata: Option<HashMap<String, String>>,
}

#[derive(Debug, Clone)]
struct Part {
    etag: String,
    modified: SystemTime,
    body: Arc<Held>,
}

/// A part, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) number: i32,
    pub(crate) size: usize,
    pub(crate) etag: String,
    pub(crate) modified: SystemTime,
}

/// An open upload, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Begun {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) when: SystemTime,
}

/// Why a step of an upload was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// There is no such upload.
    NoUpload,
    /// Not the number of a part.
    Number,
    /// A part that was not stored, or is another now.
    Part,
    /// Parts are not named in their order.
    Order,
    /// A part that is not the last is too small.
    Small,
    /// The memory is full.
    Full,
    /// No object is made of it because of what stands there.
    Missing(Missing),
}

impl Objects {
    /// Begins an upload.
    pub(crate) fn begin(&self, bucket: &str, key: &str, about: About) -> Result<String, Wrong> {
        if !self.has_bucket(bucket) {
            return Err(Wrong::Missing(Missing::Bucket));
        }
        let room = self.room().ok_or(Wrong::Full)?;
        let mut uploads = self.uploads();
        uploads.begun += 1;
        // Of the same length, so that they are in the order in which they began.
        let id = format!("upload-{:010}", uploads.begun);
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let upload = Upload { bucket, key, about, begun: now(), parts: BTreeMap::new(), _room: room };
        uploads.open.insert(id.clone(), upload);
        Ok(id)
    }

    /// Stores a part, in the place of one with its number. Returns its etag.
    pub(crate) fn put_part(&self, bucket: &str, key: &str, id: &str, number: i32, body: Held) -> Result<String, Wrong> {
        if !(1..=PARTS_MAX).contains(&number) {
            return Err(Wrong::Number);
        }
        let etag = self.fresh_etag();
        let mut uploads = self.uploads();
        let upload = uploads.find(bucket, key, id)?;
        upload.parts.insert(number, Part { etag: etag.clone(), modified: now(), body: Arc::new(body) });
        Ok(etag)
    }

    /// Makes an object of the parts that are named, with their numbers and etags, if `condition` is met. Returns its etag.
    pub(crate) fn complete(
        &self,
        (bucket, key, id): (&str, &str, &str),
        named: &[(i32, String)],
        condition: &Condition,
    ) -> Result<String, Wrong> {
        let (parts, about) = {
            let mut uploads = self.uploads();
            let upload = uploads.find(bucket, key, id)?;
            (upload.choose(named)?, upload.about.clone())
        };
        let mut body = self.room().ok_or(Wrong::Full)?;
        let size = parts.iter().map(|part| part.bytes.len()).sum();
        body.grow(size).ok_or(Wrong::Full)?;
        let mut bytes = BytesMut::with_capacity(size);
        parts.iter().for_each(|part| bytes.extend_from_slice(&part.bytes));
        body.bytes = bytes.freeze();
        // Held until the object stands: of two completions of an upload one finds it.
        let mut uploads = self.uploads();
        uploads.find(bucket, key, id)?;
        let new = New { body, content_type: about.content_type, metadata: about.metadata };
        let etag = self.put(bucket, key, new, condition).map_err(Wrong::Missing)?;
        uploads.open.remove(id);
        Ok(etag)
    }

    /// Gives an upload up.
    pub(crate) fn abort(&self, bucket: &str, key: &str, id: &str) -> Result<(), Wrong> {
        let mut uploads = self.uploads();
        uploads.find(bucket, key, id)?;
        uploads.open.remove(id);
        Ok(())
    }

    /// The parts of an upload behind number `after`, at most `max`, and whether there are more.
    pub(crate) fn parts(
        &self,
        (bucket, key, id): (&str, &str, &str),
        after: i32,
        max: usize,
    ) -> Result<(Vec<Told>, bool), Wrong> {
        let mut uploads = self.uploads();
        let upload = uploads.find(bucket, key, id)?;
        let told = |(number, part): (&i32, &Part)| Told {
            number: *number,
            size: part.body.bytes.len(),
            etag: part.etag.clone(),
            modified: part.modified,
        };
        let mut parts = upload.parts.range((Bound::Excluded(after), Bound::Unbounded)).map(told);
        Ok((parts.by_ref().take(max).collect(), parts.next().is_some()))
    }

    /// The open uploads of keys with `prefix` in their order, at most `max`, and whether there are more. `after`: behind a key, or behind one
    /// upload of it.
    pub(crate) fn begun(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, Option<&str>)>,
        max: usize,
    ) -> Result<(Vec<Begun>, bool), Wrong> {
        if !self.has_bucket(bucket) {
            return Err(Wrong::Missing(Missing::Bucket));
        }
        let uploads = self.uploads();
        let is_asked_for = |id: &str, upload: &Upload| {
            let is_behind = match after {
                None => true,
                Some((key, None)) => &*upload.key > key,
                Some((key, Some(after))) => (&*upload.key, id) > (key, after),
            };
            upload.bucket == bucket && upload.key.starts_with(prefix) && is_behind
        };
        let found = uploads.open.iter().filter(|(id, upload)| is_asked_for(id, upload));
        let mut found: Vec<_> =
            found.map(|(id, upload)| Begun { key: upload.key.clone(), id: id.clone(), when: upload.begun }).collect();
        found.sort();
        let more = found.len() > max;
        found.truncate(max);
        Ok((found, more))
    }

    /// How many were begun, and neither completed nor given up.
    pub(crate) fn uploads_open(&self) -> usize {
        self.uploads().open.len()
    }

    fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().expect("no code panics while it holds the uploads")
    }
}

impl Uploads {
    fn find(&mut self, bucket: &str, key: &str, id: &str) -> Result<&mut Upload, Wrong> {
        let found = self.open.get_mut(id).filter(|upload| (&*upload.bucket, &*upload.key) == (bucket, key));
        found.ok_or(Wrong::NoUpload)
    }
}

impl Upload {
    fn choose(&self, named: &[(i32, String)]) -> Result<Vec<Arc<Held>>, Wrong> {
        if named.is_empty() || !named.is_sorted_by(|one, next| one.0 < next.0) {
            return Err(Wrong::Order);
        }
        let find = |(number, etag): &(i32, String)| {
            let part = self.parts.get(number).filter(|part| part.etag == *etag);
            part.map(|part| Arc::clone(&part.body)).ok_or(Wrong::Part)
        };
        let chosen = named.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let is_small = |part: &Arc<Held>| part.bytes.len() < PART_BYTES_MIN;
        if chosen.iter().rev().skip(1).any(is_small) { Err(Wrong::Small) } else { Ok(chosen) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::s3::conduct::{Clock, Demeanour};

    const LARGE: usize = PART_BYTES_MIN;

    fn objects(memory_bytes_max: usize) -> Objects {
        let objects = Objects::new(memory_bytes_max, Arc::new(Demeanour::new(0, Clock::default())));
        objects.create_bucket("b");
        objects
    }

    fn put(objects: &Objects, id: &str, number: i32, byte: u8, size: usize) -> Result<(i32, String), Wrong> {
        let mut body = objects.room().ok_or(Wrong::Full)?;
        body.grow(size).ok_or(Wrong::Full)?;
        body.bytes = Bytes::from(vec![byte; size]);
        objects.put_part("b", "k", id, number, body).map(|etag| (number, etag))
    }

    fn complete(objects: &Objects, id: &str, named: &[(i32, String)]) -> Result<String, Wrong> {
        objects.complete(("b", "k", id), named, &Condition::Absent)
    }

    #[test]
    fn an_object_is_made_of_the_parts_that_are_named_and_of_the_last_of_each() {
        let objects = objects(1 << 30);
        assert_eq!(objects.begin("none", "k", About::default()), Err(Wrong::Missing(Missing::Bucket)));
        let id = objects.begin("b", "k", About::default()).unwrap();
        let replaced = put(&objects, &id, 1, 1, LARGE).unwrap();
        let (second, first) = (put(&objects, &id, 2, 2, 3).unwrap(), put(&objects, &id, 1, 7, LARGE).unwrap());
        put(&objects, &id, 5, 5, 1).unwrap();
        assert_eq!(objects.look("b", "k", &Condition::Present), Err(Missing::Object), "it is not there yet");
        for (named, wrong) in [
            (vec![], Wrong::Order),
            (vec![second.clone(), first.clone()], Wrong::Order),
            (vec![first.clone(), first.clone()], Wrong::Order),
            (vec![replaced, second.clone()], Wrong::Part),
            (vec![(3, "x".to_owned())], Wrong::Part),
            (vec![second.clone(), (5, objects.fresh_etag())], Wrong::Part),
        ] {
            assert_eq!(complete(&objects, &id, &named), Err(wrong), "{named:?}");
        }
        for number in [0, -1, PARTS_MAX + 1] {
            assert_eq!(put(&objects, &id, number, 0, 1), Err(Wrong::Number));
        }
        complete(&objects, &id, &[first, second]).unwrap();
        assert_eq!(objects.get("b", "k").unwrap().body.bytes, [vec![7; LARGE], vec![2; 3]].concat());
        assert_eq!(complete(&objects, &id, &[]), Err(Wrong::NoUpload));
        assert_eq!(objects.uploads_open(), 0);
    }

    #[test]
    fn all_parts_but_the_last_have_a_least_size_and_what_stands_there_decides() {
        let objects = objects(1 << 30);
        let ids = [(); 3].map(|()| objects.begin("b", "k", About::default()).unwrap());
        let small = [put(&objects, &ids[0], 1, 0, LARGE - 1).unwrap(), put(&objects, &ids[0], 2, 0, 1).unwrap()];
        assert_eq!(complete(&objects, &ids[0], &small), Err(Wrong::Small));
        complete(&objects, &ids[0], &small[1..]).unwrap();
        let part = put(&objects, &ids[1], 1, 9, 4).unwrap();
        let declined = Err(Wrong::Missing(Missing::Condition));
        assert_eq!(complete(&objects, &ids[1], std::slice::from_ref(&part)), declined);
        assert_eq!(
            objects.complete(("b", "other", &ids[1]), std::slice::from_ref(&part), &Condition::None),
            Err(Wrong::NoUpload)
        );
        objects.complete(("b", "k", &ids[1]), &[part], &Condition::None).unwrap();
        assert_eq!(objects.get("b", "k").unwrap().body.bytes, vec![9; 4]);
        objects.abort("b", "k", &ids[2]).unwrap();
        assert_eq!(objects.abort("b", "k", &ids[2]), Err(Wrong::NoUpload));
    }

    #[test]
    fn what_is_open_is_listed_in_pages() {
        let objects = objects(1 << 20);
        let ids = ["b/2", "a", "b/1", "b/2"].map(|key| (key, objects.begin("b", key, About::default()).unwrap()));
        let listed = |prefix: &str, max: usize| {
            let (mut all, mut after) = (Vec::new(), None::<Begun>);
            loop {
                let behind = after.as_ref().map(|upload| (&*upload.key, Some(&*upload.id)));
                let (page, more) = objects.begun("b", prefix, behind, max).unwrap();
                assert!(page.len() <= max);
                after = page.last().cloned();
                all.extend(page.into_iter().map(|upload| (upload.key, upload.id)));
                if !more {
                    return all;
                }
            }
        };
        let expected = |order: &[usize]| -> Vec<_> {
            order.iter().map(|index| (ids[*index].0.to_owned(), ids[*index].1.clone())).collect()
        };
        for max in 1..5 {
            assert_eq!(listed("", max), expected(&[1, 2, 0, 3]));
            assert_eq!(listed("b/2", max), expected(&[0, 3]));
        }
        assert_eq!(objects.begun("b", "", Some(("b/1", None)), 9).unwrap().0.len(), 2);
        assert_eq!(objects.begun("none", "", None, 9), Err(Wrong::Missing(Missing::Bucket)));
        let id = objects.begin("b", "k", About::default()).unwrap();
        let stored = [4, 2, 9].map(|number| put(&objects, &id, number, 0, 10 + number as usize).unwrap());
        let parts = |after, max| {
            let (parts, more) = objects.parts(("b", "k", &id), after, max).unwrap();
            (parts.into_iter().map(|part| (part.number, part.size, part.etag)).collect::<Vec<_>>(), more)
        };
        let part = |index: usize| (stored[index].0, 10 + stored[index].0 as usize, stored[index].1.clone());
        assert_eq!(parts(0, 2), (vec![part(1), part(0)], true));
        assert_eq!(parts(4, 2), (vec![part(2)], false));
        assert_eq!(objects.parts(("b", "other", &id), 0, 1), Err(Wrong::NoUpload));
    }

    #[test]
    fn parts_are_held_until_they_are_given_up() {
        let objects = objects(100_000);
        let id = objects.begin("b", "k", About::default()).unwrap();
        put(&objects, &id, 1, 0, 90_000).unwrap();
        assert_eq!(put(&objects, &id, 2, 0, 20_000), Err(Wrong::Full));
        assert_eq!(complete(&objects, &id, &[put(&objects, &id, 2, 0, 1).unwrap()]).map(drop), Ok(()));
        put(&objects, &objects.begin("b", "k", About::default()).unwrap(), 1, 0, 90_000).unwrap();
    }
}
