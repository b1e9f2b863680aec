//! One RTSP session as a task on the runtime.
//!
//! It connects for its first request, then keeps the stream drained: a camera whose data nobody reads closes the connection or
//! sends pictures minutes old. A frame that nobody asked for is dropped as it comes; nothing is queued. The task decodes nothing
//! (the runtime has one thread) and keeps no time: the asker does, and a closed request channel ends the task wherever it is.
//! Its end is a TEARDOWN, confirmed or given up after [`TEARDOWN_MAX_MS`].

use crate::capture::rtsp::fault::{Hidden, Progress, Stage, meaning, refuses_transport};
use crate::capture::rtsp::h264;
use crate::capture::source::CaptureError;
use crate::clock::boottime_now_ms;
use crate::model::{PICTURE_BYTES_MAX, TEARDOWN_MAX_MS};
use futures_util::StreamExt;
use retina::client::{
    Credentials, Demuxed, Described, InitialSequenceNumberPolicy, PlayOptions, Session, SessionGroup, SessionIdPolicy, SessionOptions,
    SetupOptions, TcpTransportOptions, TeardownPolicy, Transport, UdpTransportOptions,
};
use retina::codec::{CodecItem, FrameFormat, VideoFrame};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc::SyncSender};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// Where the camera is and how to log in; one per source, shared with its sessions.
pub struct Address {
    pub camera: String,
    pub url: url::Url,
    pub credentials: Option<Credentials>,
    pub hidden: Hidden,
    /// Learnt once: the camera does not do RTP over TCP.
    pub udp: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    H264,
    Jpeg,
}

/// A complete coded picture, not yet decoded.
#[derive(Debug)]
pub struct Shot {
    pub encoding: Encoding,
    pub data: Vec<u8>,
    pub arrived_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Get ready for a shot.
    Ready,
    /// A picture from this instant on; whether the session is to go on after it.
    Shot { not_before_ms: u64, stay: bool },
}

pub struct Request {
    pub wanted: Wanted,
    /// Without a shot: ready for one.
    pub reply: SyncSender<Result<Option<Shot>, CaptureError>>,
}

/// Runs until the requests' sender is dropped, the stream ends, or a shot is given after which it is not to stay.
/// `_ended` is dropped last: its receiver learns that the camera has been told.
pub async fn run(address: Arc<Address>, mut requests: Receiver<Request>, progress: Arc<Progress>, _ended: SyncSender<()>) {
    let group = Arc::new(SessionGroup::default());
    serve(&address, &mut requests, &progress, &group).await;
    // Nothing can be done about a camera that does not confirm; it was told.
    let _ = tokio::time::timeout(Duration::from_millis(TEARDOWN_MAX_MS), group.await_teardown()).await;
}

async fn serve(address: &Address, requests: &mut Receiver<Request>, progress: &Progress, group: &Arc<SessionGroup>) {
    let Some(mut request) = requests.recv().await else { return };
    let Some(set_up) = meanwhile(set_up(address, progress, group), requests, &mut request).await else { return };
    let (session, encoding) = match set_up {
        Ok(set_up) => set_up,
        Err(error) => return answer(request, Err(error)),
    };
    if encoding == Encoding::H264 {
        progress.ready();
        // Most cameras begin a stream with a keyframe, and the next one may be seconds away: so this one is told to play at the instant
        // the picture is wanted.
        while request.wanted == Wanted::Ready {
            answer(request, Ok(None));
            request = match requests.recv().await {
                Some(next) => next,
                None => return,
            };
        }
    }
    let Some(playing) = meanwhile(play(session, address, progress), requests, &mut request).await else { return };
    let mut stream = match playing {
        Ok(stream) => stream,
        Err(error) => return answer(request, Err(error)),
    };
    let mut pending = Some(request);
    loop {
        let item = tokio::select! {
            asked = requests.recv() => match asked {
                Some(request) => {
                    pending = Some(request);
                    continue;
                }
                None => return,
            },
            item = stream.next() => item,
        };
        let ended = match item {
            Some(Ok(CodecItem::VideoFrame(frame))) => {
                let Some(request) = pending.take() else {
                    note(&frame, progress);
                    continue;
                };
                match shot(frame, encoding, request.wanted, progress) {
                    None => pending = Some(request),
                    Some(_) if request.wanted == Wanted::Ready => answer(request, Ok(None)),
                    Some(shot) if matches!(request.wanted, Wanted::Shot { stay: false, .. }) => {
                        // Dropped first: the TEARDOWN is on its way before anybody can ask for a new session.
                        drop(stream);
                        return answer(request, Ok(Some(shot)));
                    }
                    Some(shot) => answer(request, Ok(Some(shot))),
                }
                continue;
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => meaning(&address.camera, &address.hidden, Stage::Frame, &error),
            None => CaptureError::Broken { camera: address.camera.clone(), cause: "it closed the stream".into() },
        };
        drop(stream);
        if let Some(request) = pending {
            answer(request, Err(ended));
        }
        return;
    }
}

/// Waits for a step of the dialogue. An asker may change its mind meanwhile (it got ready in vain by its deadline, and now wants its
/// shot); `None`: nobody asks any more.
async fn meanwhile<T>(step: impl Future<Output = T>, requests: &mut Receiver<Request>, request: &mut Request) -> Option<T> {
    let mut step = std::pin::pin!(step);
    loop {
        tokio::select! {
            done = &mut step => return Some(done),
            asked = requests.recv() => *request = asked?,
        }
    }
}

/// An asker that has gone needs no answer.
fn answer(request: Request, result: Result<Option<Shot>, CaptureError>) {
    let _ = request.reply.try_send(result);
}

fn note(frame: &VideoFrame, progress: &Progress) -> u64 {
    let arrived_ms = boottime_now_ms();
    progress.frame(arrived_ms, frame.loss() > 0);
    arrived_ms
}

/// The frame as a shot, if it is whole, new enough and a picture by itself.
fn shot(frame: VideoFrame, encoding: Encoding, wanted: Wanted, progress: &Progress) -> Option<Shot> {
    let arrived_ms = note(&frame, progress);
    let not_before_ms = match wanted {
        Wanted::Ready => 0,
        Wanted::Shot { not_before_ms, .. } => not_before_ms,
    };
    let usable = frame.loss() == 0 && frame.is_random_access_point() && frame.data().len() <= PICTURE_BYTES_MAX;
    let alone = usable && (encoding == Encoding::Jpeg || h264::is_keyframe(frame.data()));
    if alone {
        progress.ready();
    }
    (alone && arrived_ms >= not_before_ms).then(|| Shot { encoding, data: frame.into_data(), arrived_ms })
}

/// Up to where the camera only has to be told to play.
async fn set_up(address: &Address, progress: &Progress, group: &Arc<SessionGroup>) -> Result<(Session<Described>, Encoding), CaptureError> {
    let explain = |stage: Stage| move |error: retina::Error| meaning(&address.camera, &address.hidden, stage, &error);
    let udp = address.udp.load(Relaxed);
    let (mut session, index, encoding) = describe(address, progress, group, udp).await?;
    progress.enter(Stage::Setup);
    match session.setup(index, options(udp)).await {
        Err(error) if !udp && refuses_transport(&error) => {
            address.udp.store(true, Relaxed);
            session = setup_udp(session, index, address, progress, group).await?;
        }
        done => done.map_err(explain(Stage::Setup))?,
    }
    Ok((session, encoding))
}

async fn play(session: Session<Described>, address: &Address, progress: &Progress) -> Result<Demuxed, CaptureError> {
    let explain = |error: retina::Error| meaning(&address.camera, &address.hidden, Stage::Play, &error);
    progress.enter(Stage::Play);
    // The sequence number in a PLAY answer is wrong on many cameras; believing it would make the first keyframe look damaged.
    let play = PlayOptions::default().initial_seq(InitialSequenceNumberPolicy::Ignore);
    let stream = session.play(play).await.map_err(explain)?.demuxed().map_err(explain)?;
    progress.enter(Stage::Frame);
    Ok(stream)
}

/// On the connection that refused TCP, or on a new one if the camera closed that.
async fn setup_udp(
    mut session: Session<Described>,
    index: usize,
    address: &Address,
    progress: &Progress,
    group: &Arc<SessionGroup>,
) -> Result<Session<Described>, CaptureError> {
    let explain = |error| meaning(&address.camera, &address.hidden, Stage::Setup, &error);
    match session.setup(index, options(true)).await {
        Err(error) if error.status_code().is_none() => {
            drop(session);
            let (mut anew, index, _) = describe(address, progress, group, true).await?;
            progress.enter(Stage::Setup);
            anew.setup(index, options(true)).await.map_err(explain)?;
            Ok(anew)
        }
        done => done.map(|()| session).map_err(explain),
    }
}

fn options(udp: bool) -> SetupOptions {
    let transport = if udp { Transport::Udp(UdpTransportOptions::default()) } else { Transport::Tcp(TcpTransportOptions::default()) };
    SetupOptions::default().transport(transport).frame_format(FrameFormat::SIMPLE)
}

/// Connects, logs in, and picks the first video stream that can be used.
async fn describe(
    address: &Address,
    progress: &Progress,
    group: &Arc<SessionGroup>,
    udp: bool,
) -> Result<(Session<Described>, usize, Encoding), CaptureError> {
    progress.enter(Stage::Describe);
    let options = SessionOptions::default()
        .creds(address.credentials.clone())
        .user_agent(concat!("shutterd/", env!("CARGO_PKG_VERSION")).into())
        .session_group(group.clone())
        .session_id(SessionIdPolicy::UseFirst)
        // Over TCP the end of the connection ends the session too; over UDP only a TEARDOWN does.
        .teardown(if udp { TeardownPolicy::Always } else { TeardownPolicy::Auto });
    let session = Session::describe(address.url.clone(), options).await;
    let session = session.map_err(|error| meaning(&address.camera, &address.hidden, Stage::Describe, &error))?;
    let videos = session.streams().iter().enumerate().filter(|(_, stream)| stream.media() == "video");
    let usable = videos.clone().find_map(|(index, stream)| match stream.encoding_name() {
        "h264" => Some((index, Encoding::H264)),
        "jpeg" => Some((index, Encoding::Jpeg)),
        _ => None,
    });
    let Some((index, encoding)) = usable else {
        let names: Vec<String> = videos.map(|(_, stream)| address.hidden.redact(&stream.encoding_name().to_uppercase())).collect();
        let cause = match names.is_empty() {
            true => "the stream has no video".into(),
            false => format!("its video is {}; set the camera, or take its second stream, to H.264 or MJPEG", names.join(", ")),
        };
        return Err(CaptureError::Unsupported { camera: address.camera.clone(), cause });
    };
    Ok((session, index, encoding))
}
