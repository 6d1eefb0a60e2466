using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;

namespace NativeLora.Training;

/// <summary>What the ranks of a training did for one another.</summary>
public sealed record RankSummary
{
    /// <summary>How many ranks there were.</summary>
    public required int Ranks { get; init; }

    /// <summary>Bytes that all ranks together were to send in a step, by <see cref="RankGroup.StepBytes"/>.</summary>
    public required long PlannedStepBytes { get; init; }

    /// <summary>Bytes that they sent in the last step.</summary>
    public required long StepBytes { get; init; }

    /// <summary>Bytes that they sent in all steps of this run.</summary>
    public required long TotalBytes { get; init; }

    /// <summary>Bytes that this rank sent for all else: the start, evaluations, checkpoints.</summary>
    public required long OtherBytes { get; init; }

    /// <summary>Bytes of the buffers that gradients are exchanged over, on each rank.</summary>
    public required long BufferBytes { get; init; }

    /// <summary>Ranges of the gradients that are exchanged one by one.</summary>
    public required int Ranges { get; init; }

    /// <summary>Share of the ranges that were begun while the backward of layers below went on.</summary>
    public required double Early { get; init; }

    /// <summary>Share of the ranges that were through before the backward was.</summary>
    public required double Hidden { get; init; }

    /// <summary>Seconds of this rank in which gradients were under way.</summary>
    public required double ExchangeSeconds { get; init; }

    /// <summary>Of them, those in which it waited; the rest is hidden behind the backward.</summary>
    public required double WaitSeconds { get; init; }
}

/// <summary>A rank's part in a training.</summary>
internal sealed class RankTraining
{
    private readonly RankGroup _group;
    private readonly TrainableModel _model;
    private readonly TrainingSession _session;
    private readonly EncodedExample[] _examples;
    private readonly int[] _lengths;
    private readonly GradientExchange _exchange;
    private bool _ran;
    private long _steps, _total, _stepsSent;

    public RankTraining(RankGroup group, TrainableModel model, TrainingSession session, EncodedExample[] examples, int sequences, int leastRangeBytes)
    {
        (_group, _model, _session, _examples) = (group, model, session, examples);
        _lengths = new int[sequences];
        _exchange = new GradientExchange(group, model.Parameters, session.Session.Plan.Graph, leastRangeBytes);
        session.Session.Observer = _exchange;
        // Where a device cannot place a share in its batch, each rank at least drops other elements.
        if (!model.Pretrained.Device.PlacesDropout)
            session.Seed = unchecked(session.Seed + 0x9E3779B97F4A7C15 * (ulong)group.Rank);
    }

    /// <summary>Bytes that all ranks sent for the last update.</summary>
    public long StepBytes => _exchange.StepBytes;

    public RankSummary Summary => new()
    {
        Ranks = _group.Size,
        PlannedStepBytes = RankGroup.StepBytes(_model.Parameters.Elements, _group.Size),
        StepBytes = _exchange.StepBytes,
        TotalBytes = _total,
        OtherBytes = _group.SentBytes - _stepsSent,
        BufferBytes = _exchange.BufferBytes,
        Ranges = _exchange.Ranges,
        Early = _steps == 0 ? 0 : _exchange.Early / (double)(_steps * _exchange.Ranges),
        Hidden = _steps == 0 ? 0 : _exchange.Hidden / (double)(_steps * _exchange.Ranges),
        ExchangeSeconds = _exchange.ExchangeSeconds,
        WaitSeconds = _exchange.WaitSeconds,
    };

    /// <summary>Finds out whether all ranks were started alike, before the first step.</summary>
    /// <exception cref="InputException">They were not; it names the first difference to rank 0.</exception>
    public void Agree(SortedDictionary<string, string> settings)
    {
        var all = _group.Gather(JsonSerializer.SerializeToUtf8Bytes(settings, TrainerStateJson.Default.SortedDictionaryStringString));
        var expected = Parse(all[0]);
        for (var r = 1; r < all.Length; r++)
        {
            var found = Parse(all[r]);
            foreach (var name in expected.Keys.Union(found.Keys))
            {
                var (first, other) = (expected.GetValueOrDefault(name, "not given"), found.GetValueOrDefault(name, "not given"));
                if (first != other)
                    throw new InputException($"the {name} of {_group.NameOf(r)} is {other}, that of {_group.NameOf(0)} is {first}; start all ranks with the same program, command, model and data");
            }
        }
    }

    private static SortedDictionary<string, string> Parse(byte[] bytes) =>
        JsonSerializer.Deserialize(bytes, TrainerStateJson.Default.SortedDictionaryStringString)!;

    /// <summary>A hash of the trainable tensors' values.</summary>
    public string Values()
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var values = _model.Parameters.Values;
        var piece = new byte[(int)Math.Min(1 << 20, values.Bytes)];
        for (long at = 0; at < values.Bytes; at += piece.Length)
        {
            var part = piece.AsSpan(0, (int)Math.Min(piece.Length, values.Bytes - at));
            values.Read(at, part);
            hash.AppendData(part);
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset().AsSpan(0, 8));
    }

    /// <summary>Finds out whether all ranks still have the same values.</summary>
    /// <exception cref="RunException">They have not.</exception>
    public void Compare(int step)
    {
        var all = _group.Gather(Encoding.UTF8.GetBytes(Values()));
        for (var r = 1; r < all.Length; r++)
            if (!all[r].AsSpan().SequenceEqual(all[0]))
                throw new RunException($"step {step}: the tensors of {_group.NameOf(r)} are no longer those of {_group.NameOf(0)}; run all ranks on processors of one kind");
    }

    /// <summary>Gives all ranks where rank 0 stands, and its optimizer.</summary>
    public TrainerState Share(TrainerState state)
    {
        var bytes = _group.Share(_group.Leads ? JsonSerializer.SerializeToUtf8Bytes(state, TrainerStateJson.Default.TrainerState) : null);
        if (!_group.Leads)
            state = JsonSerializer.Deserialize(bytes, TrainerStateJson.Default.TrainerState)!;
        if (state.Step == 0)
            return state;
        ShareValues();
        Share(_model.Parameters.FirstMoments!);
        Share(_model.Parameters.SecondMoments!);
        return state;
    }

    /// <summary>Gives all ranks the values that rank 0 has.</summary>
    public void ShareValues() => Share(_model.Parameters.Values);

    private void Share(DeviceBuffer buffer) => _group.Share(buffer.Bytes, (at, to) => buffer.Read(at, to.Span), (at, from) => buffer.Write(at, from.Span));

    /// <summary>A new update begins.</summary>
    public void Begin()
    {
        _ran = false;
        _exchange.Begin();
    }

    /// <summary>Forward and backward of this rank's share of a micro-batch.</summary>
    /// <param name="packer">Fills batches.</param>
    /// <param name="batch">A batch to fill.</param>
    /// <param name="indices">Examples of the whole micro-batch.</param>
    /// <param name="inverse">1 over the labels of the whole update.</param>
    /// <param name="last">Whether it is the update's last.</param>
    /// <param name="tokens">Tokens of the whole micro-batch.</param>
    /// <returns>This rank's part of the loss.</returns>
    public float Accumulate(BatchPacker packer, PackedBatch batch, ReadOnlySpan<int> indices, float inverse, bool last, out int tokens)
    {
        var lengths = _lengths.AsSpan(0, indices.Length);
        tokens = 0;
        for (var i = 0; i < lengths.Length; i++)
            tokens += lengths[i] = _examples[indices[i]].Length;
        var (from, to) = (RankShare.First(lengths, tokens, _group.Rank, _group.Size), RankShare.First(lengths, tokens, _group.Rank + 1, _group.Size));
        if (last)
            _exchange.Arm();
        if (from == to)
        {
            // Fewer rows than ranks: this one adds nothing, and its dropouts are those of the others none the less.
            _session.MicroBatches++;
            return 0;
        }
        BatchSize before = default;
        for (var i = 0; i < from; i++)
            before = new BatchSize(before.Tokens + lengths[i], before.Sequences + 1, 0) { Pictures = before.Pictures + _examples[indices[i]].PictureCount };
        packer.Fill(batch, _examples, indices[from..to]);
        var loss = _session.Accumulate(batch, inverse, !_ran, before);
        _ran = true;
        return loss;
    }

    /// <summary>Makes the gradients the sums over all ranks.</summary>
    /// <returns>The loss of the whole update.</returns>
    public double Finish(double loss, int step)
    {
        if (!_ran)
            _model.Parameters.Gradients!.Clear();
        loss = _exchange.Finish(loss, step);
        _steps++;
        _total += _exchange.StepBytes;
        _stepsSent += _exchange.OwnBytes;
        return loss;
    }

    /// <summary>Takes the norm of the summed gradients.</summary>
    public void Note(double norm) => _exchange.Note(norm);
}
