//! The file against a model of it: whatever is written where, it reads as if nothing were ever written ahead.
use super::*;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

#[test]
fn a_file_filled_ahead_reads_as_if_it_were_not() {
    let path = std::env::temp_dir().join(format!("shutterd-counted-{}", std::process::id()));
    let (mut ahead, mut writes) = (0, 0_u64);
    for seed in 1..=40_u64 {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let disk = Counted::new(FileBackend::new(file.try_clone().unwrap()).unwrap(), Arc::default());
        let mut model: Vec<u8> = Vec::new();
        // Xorshift (Marsaglia 2003).
        let mut state = seed << 20 | 1;
        let mut below = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n.max(1)
        };
        for n in 0..200_u64 {
            let len = model.len() as u64;
            if len < 8_192 || below(12) == 0 {
                let to = if below(3) == 0 { len / 2 } else { len * 2 + 73_728 }.min(1 << 20);
                disk.set_len(to).unwrap();
                model.resize(to as usize, 0);
                continue;
            }
            let page = vec![n as u8 | 1; if below(9) == 0 { 320 } else { 4_096 }];
            // Mostly low places, as redb takes them, now and then a far one.
            let reach = if below(4) == 0 { len } else { len.min(n * 4_096) };
            let at = below(reach.saturating_sub(4_096)) / 4_096 * 4_096;
            model[at as usize..][..page.len()].copy_from_slice(&page);
            disk.write(at, &page).unwrap();
            writes += page.len() as u64;
        }
        let mut found = vec![0; model.len()];
        disk.read(0, &mut found).unwrap();
        assert!(disk.len().unwrap() == model.len() as u64 && found == model, "seed {seed}");
        ahead += disk.tally.written().bytes;
    }
    println!("counted: {writes} bytes asked for, {} written ahead, all as the model says", ahead - writes);
    assert!(ahead > writes);

    let file = File::options().read(true).write(true).truncate(true).open(&path).unwrap();
    let disk = Counted::new(FileBackend::new(file.try_clone().unwrap()).unwrap(), Arc::default());
    disk.set_len(1 << 20).unwrap();
    disk.write(0, &[1; 4_096]).unwrap();
    disk.sync_data().unwrap();
    let held = file.metadata().unwrap().blocks();
    disk.write(AHEAD_BYTES - 4_096, &[1; 4_096]).unwrap();
    disk.sync_data().unwrap();
    assert_eq!(file.metadata().unwrap().blocks(), held, "the next pages have their place on the disk");
    assert!(held * 512 < 2 * AHEAD_BYTES, "and no more than a little is taken ahead");
    std::fs::remove_file(path).unwrap();
}
