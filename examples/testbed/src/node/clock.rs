//! A wrong clock for one process: the functions that tell it the time are replaced in its own copy of the vDSO.
//!
//! Linux has no namespace for the time of day, and programs of Go ask the vDSO, past any library that could be put
//! before it. The page is the kernel's but each process may have a private copy of it, as a debugger makes one for
//! a breakpoint; so the others keep the right time.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    thread,
    time::Duration,
};

use jiff::SignedDuration;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// What a process needs to become a program, and threads to stop.
const LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(1);

/// Sets the time of day of a process that has just been started, as far from the machine's as `offset`.
pub(super) fn shift(pid: u32, offset: SignedDuration) -> io::Result<()> {
    let vdso = Vdso::when_mapped(pid)?;
    let patches = [
        (&b"__vdso_clock_gettime"[..], clock_gettime(offset)),
        (b"__vdso_gettimeofday", gettimeofday(offset)),
        (b"__vdso_time", time(offset)),
    ];
    let patches = patches.map(|(name, code)| vdso.function(name, &code).map(|at| (at, code)));
    let _stopped = Stopped::outside_of(pid, &vdso)?;
    for patch in patches {
        let (at, code) = patch?;
        vdso.memory.write_all_at(&code, at)?;
    }
    Ok(())
}

/// Waits until a forked process runs another program than its parent.
pub(super) fn wait_for_program(
    pid: impl Fn() -> Option<u32>,
    parent: impl Fn() -> Option<u32>,
) -> io::Result<u32> {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let (Some(parent), Some(pid)) = (parent(), pid())
            && let (Some(before), Some(now)) = (program(parent), program(pid))
            && before != now
        {
            return Ok(pid);
        }
        thread::sleep(LOOK);
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "the program did not start",
    ))
}

// === the code ===

// x86-64. Each asks the kernel and adds the offset; `syscall` spoils rcx and r11, which are the callee's to spoil.

fn clock_gettime(offset: SignedDuration) -> Vec<u8> {
    let mut code = vec![
        0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
        0x0f, 0x05, // syscall
        0x85, 0xff, // test edi, edi: CLOCK_REALTIME
        0x74, 0x05, // jz add
        0x83, 0xff, 0x05, // cmp edi, CLOCK_REALTIME_COARSE
        0x75, 0x0d, // jne done
    ];
    code.extend(add_to_memory(0x0e, offset)); // add: [rsi]
    code.push(0xc3); // done: ret
    code
}

fn gettimeofday(offset: SignedDuration) -> Vec<u8> {
    let mut code = vec![
        0xb8, 96, 0, 0, 0, // mov eax, SYS_gettimeofday
        0x0f, 0x05, // syscall
        0x48, 0x85, 0xff, // test rdi, rdi
        0x74, 0x0d, // jz done
    ];
    code.extend(add_to_memory(0x0f, offset)); // [rdi]
    code.push(0xc3); // done: ret
    code
}

fn time(offset: SignedDuration) -> Vec<u8> {
    let mut code = vec![
        0xb8, 201, 0, 0, 0, // mov eax, SYS_time
        0x0f, 0x05, // syscall
        0x48, 0xb9, // mov rcx, offset
    ];
    code.extend(offset.as_secs().to_le_bytes());
    code.extend([
        0x48, 0x01, 0xc8, // add rax, rcx
        0x48, 0x85, 0xff, // test rdi, rdi
        0x74, 0x03, // jz done
        0x48, 0x89, 0x07, // mov [rdi], rax
        0xc3, // done: ret
    ]);
    code
}

/// Thirteen bytes: `mov rcx, offset; add [register], rcx`.
fn add_to_memory(register: u8, offset: SignedDuration) -> Vec<u8> {
    let seconds = offset.as_secs().to_le_bytes();
    [&[0x48, 0xb9][..], &seconds, &[0x48, 0x01, register]].concat()
}

// === Vdso ===

struct Vdso {
    memory: File,
    start: u64,
    image: Vec<u8>,
}

impl Vdso {
    /// The kernel names the new program a moment before it maps the page.
    fn when_mapped(pid: u32) -> io::Result<Self> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match Self::of(pid) {
                Err(_) if Instant::now() < deadline => thread::sleep(LOOK),
                result => return result,
            }
        }
    }

    fn of(pid: u32) -> io::Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            return Err(io::Error::other("the code is for x86-64 only"));
        }
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let line = maps.lines().find(|line| line.ends_with("[vdso]"));
        let range = line.and_then(|line| line.split(' ').next()?.split_once('-'));
        let parse = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = range
            .and_then(|(start, end)| Some((parse(start)?, parse(end)?)))
            .ok_or_else(|| io::Error::other("the process has no vDSO"))?;
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
        let mut image = vec![0; length.min(1 << 20)];
        memory.read_exact_at(&mut image, start)?;
        Ok(Self {
            memory,
            start,
            image,
        })
    }

    /// Returns where a function is that is long enough for the code.
    fn function(&self, name: &[u8], code: &[u8]) -> io::Result<u64> {
        let found = self.symbols().and_then(|symbols| {
            symbols.into_iter().find(|symbol| {
                let text = self.image.get(symbol.name..).unwrap_or_default();
                text.strip_prefix(name)
                    .is_some_and(|rest| rest.first() == Some(&0))
            })
        });
        let missing = || format!("the vDSO has no {}", String::from_utf8_lossy(name));
        let found = found.ok_or_else(|| io::Error::other(missing()))?;
        if found.size < code.len() as u64 {
            return Err(io::Error::other("a function of the vDSO is too short"));
        }
        Ok(self.start + found.value)
    }

    /// Reads the dynamic symbols: `None` when this is not the ELF file that a vDSO is.
    fn symbols(&self) -> Option<Vec<Symbol>> {
        const DYNAMIC: u64 = 2;
        const STRINGS: u64 = 5;
        const SYMBOLS: u64 = 6;
        let (headers, size) = (self.u64(32)?, self.u16(54)?);
        let headers = (0..self.u16(56)?).map(|index| headers + index * size);
        let dynamic = headers
            .into_iter()
            .find(|&at| self.u64(at).map(|word| word & 0xffff_ffff) == Some(DYNAMIC))?;
        let table = self.u64(dynamic + 8)?;
        let entry = |tag| {
            let mut entries = (0..64).map(|index| table + 16 * index);
            entries
                .find(|&at| self.u64(at) == Some(tag))
                .and_then(|at| self.u64(at + 8))
        };
        // The names follow the symbols.
        let (symbols, strings) = (entry(SYMBOLS)?, entry(STRINGS)?);
        let count = strings.checked_sub(symbols)? / 24;
        let symbol = |index| {
            let at = symbols + 24 * index;
            let name = strings + (self.u64(at)? & 0xffff_ffff);
            Some(Symbol {
                name: usize::try_from(name).ok()?,
                value: self.u64(at + 8)?,
                size: self.u64(at + 16)?,
            })
        };
        (0..count.min(1000)).map(symbol).collect()
    }

    fn u64(&self, at: u64) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.image.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn u16(&self, at: u64) -> Option<u64> {
        self.u64(at).map(|word| word & 0xffff)
    }

    fn holds(&self, address: u64) -> bool {
        (self.start..self.start + self.image.len() as u64).contains(&address)
    }
}

struct Symbol {
    name: usize,
    value: u64,
    size: u64,
}

// === Stopped ===

/// A process whose threads stand still; it goes on when the value is dropped.
struct Stopped(Pid);

impl Stopped {
    /// Stops a process where none of its threads is in the vDSO.
    fn outside_of(pid: u32, vdso: &Vdso) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| io::Error::other("not a process"))?;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            kill_process(raw, Signal::STOP)?;
            let stopped = Self(raw);
            while Instant::now() < deadline {
                match places(pid)? {
                    Some(places) if places.iter().any(|&at| vdso.holds(at)) => break,
                    Some(_) => return Ok(stopped),
                    None => thread::sleep(LOOK),
                }
            }
            drop(stopped);
            thread::sleep(LOOK);
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the process does not stop",
        ))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // One that has ended need not go on.
        _ = kill_process(self.0, Signal::CONT);
    }
}

/// Returns where each thread stands, or `None` while one still runs.
fn places(pid: u32) -> io::Result<Option<Vec<u64>>> {
    let mut places = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let state = fs::read_to_string(task?.path().join("syscall"))?;
        let Some(counter) = state.split_whitespace().last() else {
            continue;
        };
        if counter == "running" {
            return Ok(None);
        }
        let counter = u64::from_str_radix(counter.trim_start_matches("0x"), 16);
        places.extend(counter.ok());
    }
    Ok(Some(places))
}
