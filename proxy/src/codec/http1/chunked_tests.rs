use proptest::prelude::*;

use super::*;

/// Reads all of `bytes`, given in pieces of `piece` bytes: the body, the trailers' names, and what was left.
fn decode(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<String>, usize), Wrong> {
    let (mut decoder, mut body, mut place, mut seen) = (Decoder::default(), Vec::new(), 0, 0);
    loop {
        match decoder.step(&bytes[place..seen])? {
            Step::Skip(count) => place += count,
            Step::Data(count) => {
                body.extend_from_slice(&bytes[place..place + count]);
                decoder.took(count);
                place += count;
            }
            Step::More if seen == bytes.len() => panic!("unfinished: {:?}", bytes.escape_ascii().to_string()),
            Step::More => seen = (seen + piece).min(bytes.len()),
            Step::End => break,
        }
    }
    let trailers = decoder.take_trailers().unwrap_or_default();
    Ok((body, trailers.keys().map(|name| name.as_str().to_owned()).collect(), bytes.len() - place))
}

#[test]
fn chunks_give_the_body_however_they_are_cut() {
    for (text, body, trailers, left) in [
        ("0\r\n\r\n", "", &[][..], 0),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", &[], 0),
        ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", &[], 0),
        ("00A\r\n0123456789\r\n000\r\n\r\n", "0123456789", &[], 0),
        ("a;x;y=z\r\n0123456789\r\n0;last\r\n\r\n", "0123456789", &[], 0),
        ("1\r\nx\r\n0\r\nA: 1\r\nb:2\r\n\r\n", "x", &["a", "b"], 0),
        ("1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n", "x", &[], 16),
    ] {
        for piece in [1, 2, 3, 7, 1000] {
            let trailers = trailers.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(decode(text.as_bytes(), piece), Ok((body.into(), trailers, left)), "{text:?} by {piece}");
        }
    }
}

#[test]
fn hostile_h03_what_two_parsers_could_read_differently_is_refused() {
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(2000));
    let many = format!("{}0\r\n\r\n", "1;eeeeeeeeeeeeeee\r\nx\r\n".repeat(100));
    let fields = format!("0\r\n{}\r\n", "a: b\r\n".repeat(33));
    let bytes = format!("0\r\na: {}\r\n\r\n", "b".repeat(8200));
    for text in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5;x\nhello\r\n0\r\n\r\n",
        "5;x\r\r\nhello\r\n0\r\n\r\n",
        "5;x=\r\nhello\r\n0\r\n\r\n",
        "5;=y\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;;x\r\nhello\r\n0\r\n\r\n",
        "5;x=y=z\r\nhello\r\n0\r\n\r\n",
        "5;x=\"a\"\r\nhello\r\n0\r\n\r\n",
        "5;x=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
        "5; x\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\n\rX",
        "5\r\nhello\r\n0\n\r\n",
        "0\r\na: b\n\r\n",
        "0\r\na : b\r\n\r\n",
        "0\r\n a: b\r\n\r\n",
        "0\r\na: b\r\n c\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        &long,
        &many,
        &fields,
        &bytes,
    ] {
        for piece in [1, 5, 10_000] {
            assert!(decode(text.as_bytes(), piece).is_err(), "{text:?} by {piece}");
        }
    }
}

#[test]
fn hostile_h03_a_size_of_sixteen_digits_is_a_size() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.step(b"7fffffffffffffff\r\nx"), Ok(Step::Skip(18)));
    assert_eq!(decoder.step(b"x"), Ok(Step::Data(1)));
    assert_eq!(Decoder::default().step(b"8000000000000000\r\nx"), Err(Wrong::Size));
}

proptest! {
    #[test]
    fn what_is_written_is_read(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..20), piece in 1usize..40) {
        let mut written = Vec::new();
        for chunk in &chunks {
            write_size(chunk.len(), &mut written);
            written.extend_from_slice(chunk);
            written.extend_from_slice(b"\r\n");
        }
        write_end(None, &mut written);
        prop_assert_eq!(decode(&written, piece), Ok((chunks.concat(), Vec::new(), 0)));
    }

    #[test]
    fn hostile_h03_no_bytes_make_it_panic_or_use_more_than_there_is(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (mut decoder, mut place) = (Decoder::default(), 0);
        loop {
            match decoder.step(&bytes[place..]) {
                Ok(Step::Skip(count)) => place += count,
                Ok(Step::Data(count)) => { decoder.took(count); place += count; }
                Ok(Step::More | Step::End) | Err(_) => break,
            }
            prop_assert!(place <= bytes.len());
        }
    }
}
