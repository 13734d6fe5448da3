//! How a benchmark is asked and how it tells: arguments, a table, and the same as JSON.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::Problem;
use crate::distribution::{Distribution, Samples};

/// What every benchmark takes.
#[derive(Debug, Args)]
pub struct Common {
    /// The `pointsman` binary that is measured.
    #[arg(long, value_name = "PATH", env = "POINTSMAN", default_value = "../target/release/pointsman")]
    pub binary: PathBuf,
    /// Where the parts keep their data, in a folder that is removed at the end; its disk is part of what is measured.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub folder: PathBuf,
    /// Write the figures there as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Leave data and logs where they are, and say where.
    #[arg(long)]
    pub keep: bool,
}

impl Common {
    /// A folder of this run.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn run_folder(&self) -> Result<tempfile::TempDir, Problem> {
        let mut folder = tempfile::Builder::new().prefix("pointsman-bench-").tempdir_in(&self.folder)?;
        if self.keep {
            folder.disable_cleanup(true);
            println!("kept: {}", folder.path().display());
        }
        Ok(folder)
    }
}

/// Where and how figures came about.
#[derive(Debug, Serialize)]
pub struct Host {
    cores: usize,
    kernel: String,
    /// File system of the data.
    disk: String,
    /// Threads that ran or waited to, averaged over a minute, when it began: more than a few mean that others worked.
    load_average: String,
    command: String,
    binary: PathBuf,
}

/// Figures under way to the reader.
#[derive(Debug, Serialize)]
pub struct Report {
    benchmark: &'static str,
    host: Host,
    distributions: Vec<(String, Distribution)>,
    /// Single figures, with their unit in the text.
    facts: Vec<(String, Value)>,
}

impl Host {
    /// Takes note of it. `benchmark` is the program that runs.
    pub fn new(benchmark: &str, common: &Common) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: first_word("/proc/sys/kernel/osrelease"),
            disk: file_system(&common.folder),
            command: format!("cargo run {profile}--bin {benchmark} -- {}", arguments.join(" "))
                .trim_end_matches(" -- ")
                .to_owned(),
            load_average: first_word("/proc/loadavg"),
            binary: common.binary.clone(),
        }
    }

    /// Prints it.
    pub fn tell(&self, benchmark: &str) {
        let Self { cores, kernel, disk, load_average, command, binary } = self;
        println!("{benchmark}: {cores} cores, Linux {kernel}, data on {disk}, load before {load_average}");
        println!("measured: {}", binary.display());
        println!("command: {command}\n");
    }
}

impl Report {
    /// Takes note of the host.
    pub fn new(benchmark: &'static str, common: &Common) -> Self {
        let host = Host::new(benchmark, common);
        Self { benchmark, host, distributions: Vec::new(), facts: Vec::new() }
    }

    /// Adds a line of the table; nothing without samples.
    pub fn line(&mut self, name: &str, samples: &Samples) {
        self.distributions.extend(samples.distribution().map(|distribution| (name.to_owned(), distribution)));
    }

    /// Adds a single figure.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.push((name.to_owned(), value.into()));
    }

    /// Prints everything, and writes it where asked. `unit`, the name of a line, adds each line's median and p99 in
    /// medians of that line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn tell(&self, unit: Option<&str>, json: Option<&Path>) -> Result<(), Problem> {
        self.host.tell(self.benchmark);
        let unit = unit.and_then(|unit| self.distributions.iter().find(|(name, _)| name == unit));
        let unit_us = unit.map(|(_, distribution)| distribution.p50_us.max(1) as f64);
        let ratios = if unit_us.is_some() { "  p50/fsync  p99/fsync" } else { "" };
        println!("{:<44} {:>6} {:>9} {:>9} {:>9} {:>9}{ratios}", "milliseconds", "n", "p50", "p90", "p99", "max");
        let ms = |us: u64| us as f64 / 1_000.0;
        for (name, Distribution { count, p50_us, p90_us, p99_us, max_us }) in &self.distributions {
            print!("{name:<44} {count:>6}");
            for us in [p50_us, p90_us, p99_us, max_us] {
                print!(" {:>9.2}", ms(*us));
            }
            if let Some(unit_us) = unit_us {
                print!("  {:>9.1}  {:>9.1}", *p50_us as f64 / unit_us, *p99_us as f64 / unit_us);
            }
            println!();
        }
        println!();
        for (name, value) in &self.facts {
            println!("{name}: {value}");
        }
        if let Some(path) = json {
            std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        }
        Ok(())
    }
}

fn first_word(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// "ext4 (/dev/vda)": the mount with the longest path above `folder`.
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let above = fields.filter(|fields| fields.len() > 2 && folder.starts_with(fields[1]));
    let nearest = above.max_by_key(|fields| fields[1].len());
    nearest.map_or_else(|| "an unknown file system".into(), |fields| format!("{} ({})", fields[2], fields[0]))
}
