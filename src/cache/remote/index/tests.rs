//! The index as a value: what is written comes back, merging is a union, old records leave.

use super::*;
use crate::oci::media_type;

fn layer(name: &str) -> CachedLayer {
    CachedLayer {
        diff_id: DiffId(Digest::of(format!("plain {name}").as_bytes())),
        blob: Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(name.as_bytes()), 100),
        created_ns: Some(5),
        foreign: false,
    }
}

fn record(number: u8, layers: &[&str]) -> RemoteRecord {
    RemoteRecord {
        id: CacheKey([number; 32]),
        keys: vec![FoundUnder {
            key: CacheKey([number; 32]).output(7),
            made_from: vec![Some(CacheKey([number - 1; 32])), None],
        }],
        outputs: vec![layers.iter().map(|name| layer(name)).collect(), Vec::new()],
        size_bytes: 10,
        created_ns: 1000 + i64::from(number),
        touched_day: 20_000 + u32::from(number),
        name: format!("[{number}/9] RUN make"),
        place: number.to_string(),
        op: ContentHash([3; 32]),
        detail: "{}".to_owned(),
        lists: vec![(ContentHash([4; 32]), vec![1, 2, 3])],
    }
}

fn index(numbers: &[u8]) -> Index {
    let mut index = Index::default();
    for number in numbers {
        index.insert(record(*number, &["base", &format!("layer {number}")]));
    }
    index
}

fn ids(index: &Index) -> Vec<u8> {
    let mut ids: Vec<u8> = index.records().map(|record| record.id.0[0]).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn an_index_survives_its_object() {
    let mut written = index(&[1, 2, 3]);
    written.pieces().insert("index.p-1".to_owned());
    let mut read = Index::read(&written.object()).unwrap();
    assert_eq!(ids(&read), [1, 2, 3]);
    for number in 1..4 {
        let id = CacheKey([number; 32]);
        assert_eq!(read.get(&id), written.get(&id));
    }
    assert_eq!(read.pieces(), written.pieces());
    assert!(read.has_blob(&Digest::of(b"base")));
    assert_eq!(read.object(), written.object());
}

#[test]
fn the_latest_long_lists_travel_and_no_more_than_fit() {
    let long = |number: u8| vec![number; LONG_LISTS_BYTES_MAX / 2];
    let of = |number: u8| {
        let mut index = Index::default();
        let mut record = record(number, &["base"]);
        record.lists.push((ContentHash([number; 32]), long(number)));
        index.insert(record);
        index
    };
    let mut all = of(5);
    for number in [7, 6] {
        all.merge(of(number));
    }
    let read = Index::read(&all.object()).unwrap();
    assert_eq!(read.list(&ContentHash([5; 32])), None);
    assert_eq!(read.list(&ContentHash([6; 32])), Some(&long(6)[..]));
    assert_eq!(read.list(&ContentHash([7; 32])), Some(&long(7)[..]));
    // A short list stands with its record.
    assert_eq!(read.list(&ContentHash([4; 32])), Some(&[1, 2, 3][..]));
    assert_eq!(read.get(&CacheKey([5; 32])).unwrap().lists.len(), 1);
}

#[test]
fn merging_is_a_union_whatever_the_order() {
    let (a, b, c) = (index(&[1, 2]), index(&[2, 3]), index(&[4]));
    let merged = |parts: &[&Index]| {
        let mut all = Index::default();
        for part in parts {
            all.merge((*part).clone());
        }
        all.object()
    };
    let object = merged(&[&a, &b, &c]);
    assert_eq!(object, merged(&[&c, &b, &a, &b]));
    assert_eq!(ids(&Index::read(&object).unwrap()), [1, 2, 3, 4]);
}

#[test]
fn of_two_results_the_later_one_stays_and_keys_add_up() {
    let mut later = record(1, &["new"]);
    later.created_ns += 1;
    later.keys[0].key = CacheKey([9; 32]);
    later.touched_day = 1;
    for order in [[0, 1], [1, 0]] {
        let both = [record(1, &["old"]), later.clone()];
        let mut index = Index::default();
        for number in order {
            index.insert(both[number].clone());
        }
        let found = index.get(&later.id).unwrap();
        assert_eq!(found.outputs, later.outputs);
        assert_eq!(found.keys.len(), 2);
        assert_eq!(found.touched_day, 20_001);
    }
}

/// Adds records until the index has sealed so many volumes.
fn sealed(volumes: usize) -> (Index, Vec<Vec<u8>>) {
    let (mut index, mut made) = (Index::default(), Vec::new());
    let mut number = 0u32;
    while made.len() < volumes {
        number += 1;
        let mut record = record(1, &[]);
        record.id = CacheKey(*blake3::hash(&number.to_le_bytes()).as_bytes());
        record.outputs[0].push(layer(&format!("layer {number}")));
        let noise = blake3::Hasher::new()
            .update(&number.to_le_bytes())
            .finalize_xof();
        let mut list = vec![0; 4096];
        let mut noise = noise;
        noise.fill(&mut list);
        record.lists = vec![(ContentHash([4; 32]), list)];
        record.touched_day = number;
        index.insert(record);
        if let Some((_, bytes)) = index.seal(0, None) {
            made.push(bytes);
        }
    }
    (index, made)
}

#[test]
fn many_records_move_to_volumes() {
    let (index, made) = sealed(2);
    assert_eq!(index.volumes().count(), 2);
    let object = index.object();
    assert!(object.content.len() < 4096, "{}", object.content.len());
    let mut read = Index::read(&object).unwrap();
    assert!(read.records().next().is_none());
    for volume in &made {
        assert!(read.open_volume(volume));
    }
    assert_eq!(read.records().count(), index.records().count());
    // What stands in a volume is not written again.
    let known = read.records().next().unwrap().clone();
    read.insert(RemoteRecord::clone(&known));
    assert_eq!(read.object(), object);
}

#[test]
fn when_volumes_become_one_the_old_and_the_too_many_are_left_out() {
    let (mut index, _) = sealed(VOLUMES_MAX);
    let all = index.records().count();
    let last = u32::try_from(all).unwrap();
    // The next records make it seal once more; ten days and 500 bytes are kept.
    let mut sealed = None;
    let mut number = last;
    while sealed.is_none() {
        number += 1;
        let mut record = record(1, &[]);
        record.id = CacheKey(*blake3::hash(&number.to_le_bytes()).as_bytes());
        record.outputs[0].push(layer(&format!("layer {number}")));
        record.touched_day = number;
        let mut list = vec![0; 4096];
        blake3::Hasher::new()
            .update(&number.to_le_bytes())
            .finalize_xof()
            .fill(&mut list);
        record.lists = vec![(ContentHash([4; 32]), list)];
        index.insert(record);
        sealed = index.seal(number - 9, Some(500));
    }
    assert_eq!(index.volumes().count(), 1);
    let kept: Vec<u32> = index.records().map(|record| record.touched_day).collect();
    assert_eq!(kept.len(), 5);
    assert!(kept.iter().all(|day| *day > number - 5), "{kept:?}");
    assert!(!index.has_blob(&Digest::of(b"layer 1")));
    assert_eq!(index.object().blobs.len(), 6);
}

#[test]
fn damaged_objects_are_no_index() {
    let good = index(&[1]).object();
    let cut = good.content.slice(..good.content.len() / 2);
    for content in [cut, bytes::Bytes::from_static(b"{}"), bytes::Bytes::new()] {
        let object = Object {
            content,
            blobs: Vec::new(),
        };
        assert!(Index::read(&object).is_none());
    }
    // A stack that stands on itself.
    let mut document = Document::of(index(&[1]).recent.values());
    document.stacks[0].0 = 0;
    let content = document.encode().into();
    let object = Object {
        content,
        blobs: Vec::new(),
    };
    assert!(Index::read(&object).is_none());
}
