using System.Buffers;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;
using NativeLora.Checkpoints;

namespace NativeLora.Training;

/// <summary><c>metrics.jsonl</c>: a line a step or evaluation, written without allocating.</summary>
internal sealed class MetricsLog : IDisposable
{
    private readonly string _path;
    private readonly SafeFileHandle _file;
    private readonly ArrayBufferWriter<byte> _line = new(1024);
    private readonly Utf8JsonWriter _json;

    /// <summary>Opens the file and cuts off what is after <paramref name="keep"/> bytes.</summary>
    /// <exception cref="RunException">It cannot be opened.</exception>
    public MetricsLog(string path, long keep)
    {
        _path = path;
        try
        {
            _file = File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite);
            Length = Math.Min(keep, RandomAccess.GetLength(_file));
            RandomAccess.SetLength(_file, Length);
        }
        catch (Exception e) when (FileErrors.IsAny(e))
        {
            _file?.Dispose();
            throw new RunException($"{path}: cannot be written: {e.Message}", e);
        }
        _json = new Utf8JsonWriter(_line);
    }

    /// <summary>Bytes so far.</summary>
    public long Length { get; private set; }

    public void Write(in TrainingProgress progress)
    {
        Begin(progress.Step, progress.Epoch);
        Number("loss"u8, progress.MeanLoss);
        Number("learning_rate"u8, progress.LearningRate);
        Number("grad_norm"u8, progress.GradientNorm);
        _json.WriteNumber("tokens"u8, progress.Tokens);
        if (progress.WireBytes is { } bytes)
            _json.WriteNumber("wire_bytes"u8, bytes);
        End(progress.Seconds);
    }

    public void Write(TrainingEvaluation evaluation, double seconds)
    {
        Begin(evaluation.Step, evaluation.Epoch);
        if (evaluation.Result.Loss is { } loss)
            Number("eval_loss"u8, loss);
        if (evaluation.Result.Perplexity is { } perplexity)
            Number("eval_perplexity"u8, perplexity);
        foreach (var metric in evaluation.Result.Metrics)
            Number(System.Text.Encoding.UTF8.GetBytes("eval_" + metric.Name), metric.Value);
        End(seconds);
    }

    /// <summary>Flushes to disk.</summary>
    public void Flush()
    {
        try
        {
            RandomAccess.FlushToDisk(_file);
        }
        catch (IOException e)
        {
            throw new RunException($"{_path}: cannot be written: {e.Message}", e);
        }
    }

    private void Begin(int step, double epoch)
    {
        _line.ResetWrittenCount();
        _json.Reset();
        _json.WriteStartObject();
        _json.WriteNumber("step"u8, step);
        Number("epoch"u8, epoch);
    }

    private void End(double seconds)
    {
        Number("seconds"u8, Math.Round(seconds, 6));
        _json.WriteEndObject();
        _json.Flush();
        _line.GetSpan(1)[0] = (byte)'\n';
        _line.Advance(1);
        try
        {
            RandomAccess.Write(_file, _line.WrittenSpan, Length);
        }
        catch (Exception e) when (FileErrors.IsAny(e))
        {
            throw new RunException($"{_path}: cannot be written: {e.Message}", e);
        }
        Length += _line.WrittenCount;
    }

    private void Number(ReadOnlySpan<byte> name, double value)
    {
        if (double.IsFinite(value))
            _json.WriteNumber(name, value);
        else
            _json.WriteNull(name);
    }

    public void Dispose()
    {
        _json.Dispose();
        _file.Dispose();
    }
}
