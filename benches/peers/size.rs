//! The bytes of each executable. tini and dumb-init need the image's C library
//! besides; the others need nothing.

use std::error::Error;
use std::fs;

use crate::subject;
use crate::table::Table;
use crate::targets::Targets;

pub(crate) fn run(targets: &mut Targets) -> Result<(), Box<dyn Error>> {
    println!("\n## size of the executable\n");
    let mut table = Table::new(&["subject", "bytes"]);
    for subject in subject::with_peers([subject::castoff()]) {
        let Some(init) = &subject.init else { continue };
        let bytes = fs::metadata(init)?.len();
        table.row([subject.name.to_owned(), bytes.to_string()]);
        if subject.name == "castoff" {
            targets.add("size", bytes as f64 / 1_048_576.0, 2.0, "MiB");
        }
    }
    println!("{table}");
    Ok(())
}
