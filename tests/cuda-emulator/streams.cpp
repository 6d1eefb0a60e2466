// The driver's API: streams and events.
#include "driver.h"

#include <chrono>

using namespace emulator;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

NL_API CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  return callInContext([&](Machine& m) -> CUresult {
    if (stream == nullptr || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    auto made = std::make_unique<Stream>();
    made->id = ++m.lastStream;
    made->blocking = flags != CU_STREAM_NON_BLOCKING;
    *stream = made.get();
    m.streams[*stream] = std::move(made);
    return CUDA_SUCCESS;
  });
}
NL_API CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

NL_API CUresult cuStreamDestroy_v2(CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (m.streams.count(handle) == 0) return CUDA_ERROR_INVALID_HANDLE;
    // Its work still runs, later.
    stream.destroyed = true;
    if (stream.capture) stream.capture->invalid = true;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuStreamSynchronize(CUstream handle) {
  return callOn(handle, [](Machine& m, Stream& stream) -> CUresult {
    if (stream.capture) {
      stream.capture->invalid = true;
      return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "cuStreamSynchronize on a stream under capture");
    }
    m.counters.synchronizations++;
    return m.wait(stream);
  });
}

// Each query finishes one piece of work, so that polling comes to an end.
NL_API CUresult cuStreamQuery(CUstream handle) {
  return callOn(handle, [](Machine& m, Stream& stream) -> CUresult {
    if (stream.capture) {
      stream.capture->invalid = true;
      return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "cuStreamQuery on a stream under capture");
    }
    if (stream.done == stream.queued) return CUDA_SUCCESS;
    CUresult r = m.step(stream);
    return r != CUDA_SUCCESS ? r : CUDA_ERROR_NOT_READY;
  });
}

NL_API CUresult cuEventCreate(CUevent* event, unsigned flags) {
  return callInContext([&](Machine& m) -> CUresult {
    if (event == nullptr || flags > 7) return CUDA_ERROR_INVALID_VALUE;
    *event = new Event();
    (*event)->timed = (flags & CU_EVENT_DISABLE_TIMING) == 0;
    m.events.insert(*event);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuEventDestroy_v2(CUevent event) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.events.erase(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
    delete event;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuEventRecord(CUevent event, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (m.events.count(event) == 0) return m.refuse(CUDA_ERROR_INVALID_HANDLE, "no such event");
    if (stream.capture) {
      if (stream.capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
      event->capture = stream.capture;
      event->captureTail = stream.captureTail;
      return CUDA_SUCCESS;
    }
    event->capture = nullptr;
    CUresult r = m.enqueue(stream, Work::Record, "record", [event, &m] {
      if (m.events.count(event) != 0) event->time = seconds();
    });
    if (r == CUDA_SUCCESS) event->recorded = true, event->ticket = {&stream, stream.queued};
    return r;
  });
}

NL_API CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (m.events.count(event) == 0) return m.refuse(CUDA_ERROR_INVALID_HANDLE, "no such event");
    if (event->capture) {
      if (stream.capture && stream.capture != event->capture) return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
      if (!stream.capture) {
        if (m.streams.count(&stream) == 0) return m.refuse(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream cannot join a capture");
        stream.capture = event->capture;
        stream.captureTail.clear();
        stream.capture->streams.insert(&stream);
      }
      stream.captureTail.insert(stream.captureTail.end(), event->captureTail.begin(), event->captureTail.end());
      return CUDA_SUCCESS;
    }
    if (stream.capture) {
      stream.capture->invalid = true;
      return m.refuse(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a stream under capture waits for an event from outside");
    }
    if (!event->recorded) return CUDA_SUCCESS;
    return m.enqueue(stream, Work::Wait, "wait", nullptr, {event->ticket});
  });
}

NL_API CUresult cuEventSynchronize(CUevent event) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.events.count(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
    m.counters.synchronizations++;
    return event->recorded ? m.wait(event->ticket) : CUDA_SUCCESS;
  });
}

NL_API CUresult cuEventQuery(CUevent event) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.events.count(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
    if (!event->recorded || event->ticket.stream->done >= event->ticket.number) return CUDA_SUCCESS;
    CUresult r = m.step(*event->ticket.stream);
    return r != CUDA_SUCCESS ? r : CUDA_ERROR_NOT_READY;
  });
}

NL_API CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return callInContext([&](Machine& m) -> CUresult {
    if (milliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
    for (CUevent e : {start, end})
      if (m.events.count(e) == 0 || !e->timed || !e->recorded) return m.refuse(CUDA_ERROR_INVALID_HANDLE, "an event that was not recorded or takes no time");
    for (CUevent e : {start, end})
      if (e->ticket.stream->done < e->ticket.number) return CUDA_ERROR_NOT_READY;
    *milliseconds = static_cast<float>((end->time - start->time) * 1000);
    return CUDA_SUCCESS;
  });
}
