using NativeLora.Data;

namespace NativeLora.Generation;

/// <summary>
/// From logits to the next token, as transformers' logits processors do it: repetition penalty, temperature, top-k, top-p, min-p. Ties
/// at top-k's bound all stay; at top-p's bound the later token stays. Allocates nothing after its construction.
/// </summary>
internal sealed class TokenSampler
{
    private readonly GenerationOptions _options;
    private readonly float[] _scores;
    private readonly float[] _selected;
    private readonly double[] _probabilities;
    private readonly ulong[] _order;
    private readonly bool[] _seen;

    public TokenSampler(GenerationOptions options, int vocabulary)
    {
        options.Validate();
        _options = options;
        _scores = new float[vocabulary];
        _seen = new bool[vocabulary];
        if (options.Temperature == 0)
            (_selected, _probabilities, _order) = ([], [], []);
        else
            (_selected, _probabilities, _order) = (new float[vocabulary], new double[vocabulary], new ulong[vocabulary]);
    }

    /// <summary>The next token.</summary>
    /// <param name="logits">A row of the vocabulary.</param>
    /// <param name="previous">Tokens so far, those of the prompt included.</param>
    /// <param name="random">Where drawing takes its numbers from.</param>
    /// <exception cref="RunException">The logits are not numbers.</exception>
    public int Next(ReadOnlySpan<float> logits, ReadOnlySpan<int> previous, SplitMix64 random)
    {
        Penalise(logits, previous);
        if (_options.Temperature == 0)
            return Best();
        Filter();
        var at = random.NextDouble() * Softmax();
        var last = 0;
        for (var i = 0; i < _probabilities.Length; i++)
        {
            if (_probabilities[i] == 0)
                continue;
            at -= _probabilities[i];
            last = i;
            if (at < 0)
                break;
        }
        return last;
    }

    /// <summary>What tokens are drawn with: 0 for those that are left out.</summary>
    public double[] Probabilities(ReadOnlySpan<float> logits, ReadOnlySpan<int> previous)
    {
        Penalise(logits, previous);
        Filter();
        var sum = Softmax();
        return [.. _probabilities.Select(p => p / sum)];
    }

    private void Penalise(ReadOnlySpan<float> logits, ReadOnlySpan<int> previous)
    {
        logits.CopyTo(_scores);
        var penalty = _options.RepetitionPenalty;
        if (penalty == 1)
            return;
        foreach (var id in previous)
        {
            if (_seen[id])
                continue;
            _seen[id] = true;
            _scores[id] = _scores[id] < 0 ? _scores[id] * penalty : _scores[id] / penalty;
        }
        foreach (var id in previous)
            _seen[id] = false;
    }

    private int Best()
    {
        var best = -1;
        var top = float.NegativeInfinity;
        for (var i = 0; i < _scores.Length; i++)
        {
            if (float.IsNaN(_scores[i]))
                throw NotNumbers();
            if (_scores[i] > top)
                (best, top) = (i, _scores[i]);
        }
        return best >= 0 && float.IsFinite(top) ? best : throw NotNumbers();
    }

    private void Filter()
    {
        if (_options.Temperature != 1)
            for (var i = 0; i < _scores.Length; i++)
                _scores[i] /= _options.Temperature;
        _ = Best();
        if (_options.TopK > 0 && _options.TopK < _scores.Length)
            KeepTopK();
        if (_options.TopP < 1)
            KeepTopP();
        if (_options.MinP > 0)
            KeepMinP();
    }

    private void KeepTopK()
    {
        _scores.CopyTo(_selected, 0);
        var bound = Select(_selected, _selected.Length - _options.TopK);
        for (var i = 0; i < _scores.Length; i++)
            if (_scores[i] < bound)
                _scores[i] = float.NegativeInfinity;
    }

    /// <summary>
    /// From the least likely on, tokens go as long as their sum stays within 1 - p. Those so unlikely that all of the vocabulary at once
    /// would stay within it go without being sorted.
    /// </summary>
    private void KeepTopP()
    {
        var sum = Softmax();
        var room = (1.0 - _options.TopP) * sum;
        var unlikely = 0.999 * room / _scores.Length;
        double gone = 0;
        var count = 0;
        for (var i = 0; i < _scores.Length; i++)
        {
            if (_probabilities[i] <= unlikely)
            {
                gone += _probabilities[i];
                _scores[i] = float.NegativeInfinity;
            }
            else
            {
                _order[count++] = SortKey(_scores[i], i);
            }
        }
        _order.AsSpan(0, count).Sort();
        for (var j = 0; j < count - 1; j++)
        {
            var i = (int)(uint)_order[j];
            gone += _probabilities[i];
            if (gone > room)
                break;
            _scores[i] = float.NegativeInfinity;
        }
    }

    private void KeepMinP()
    {
        var top = _scores[Best()];
        for (var i = 0; i < _scores.Length; i++)
            if (Math.Exp(_scores[i] - top) < _options.MinP)
                _scores[i] = float.NegativeInfinity;
    }

    /// <summary>exp(score - highest) of each token; returns their sum.</summary>
    private double Softmax()
    {
        var top = _scores[Best()];
        double sum = 0;
        for (var i = 0; i < _scores.Length; i++)
            sum += _probabilities[i] = float.IsNegativeInfinity(_scores[i]) ? 0 : Math.Exp((double)_scores[i] - top);
        return sum;
    }

    /// <summary>A number that orders by score, then by token.</summary>
    private static ulong SortKey(float score, int token)
    {
        var bits = BitConverter.SingleToUInt32Bits(score + 0f); // no negative zero
        bits = (bits & 0x80000000) != 0 ? ~bits : bits | 0x80000000;
        return (ulong)bits << 32 | (uint)token;
    }

    /// <summary>The value that stands at an index once they are sorted (Hoare's selection); reorders the values.</summary>
    private static float Select(Span<float> values, int index)
    {
        int low = 0, high = values.Length - 1;
        while (low < high)
        {
            var pivot = values[low + (high - low) / 2];
            int i = low, j = high;
            while (i <= j)
            {
                while (values[i] < pivot)
                    i++;
                while (values[j] > pivot)
                    j--;
                if (i > j)
                    break;
                (values[i], values[j]) = (values[j], values[i]);
                i++;
                j--;
            }
            if (index <= j)
                high = j;
            else if (index >= i)
                low = i;
            else
                break;
        }
        return values[index];
    }

    private static RunException NotNumbers() =>
        new("the model's logits are not numbers: its weights or its adapter are damaged, or overflow in the type they are stored in");
}
